"""What a change of a model costs: the loss on labels, or, without labels, how far its outputs move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from lvc.compiler.data.labelled import UNKNOWN
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.evaluation import unknown_class


def classification_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a classifier's first output, summed over the batch."""
    scores = outputs[0].flatten(1)
    if int(labels.max()) >= scores.shape[1]:
        raise unknown_class(int(labels.max()), scores.shape[1])
    return functional.cross_entropy(scores, labels, reduction="sum")


def segmentation_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the classes of pixels, the mean over those of each image that are known, summed over
    the batch.

    Scores ``[N,C,h,w]`` are the first output, brought to the size of the labels ``u8[N,H,W]``.
    """
    scores, wanted = outputs[0], labels.long()
    known = wanted != UNKNOWN
    if bool(known.any()) and int(wanted[known].max()) >= scores.shape[1]:
        raise unknown_class(int(wanted[known].max()), scores.shape[1])
    if scores.shape[2:] != wanted.shape[1:]:
        scores = functional.interpolate(scores, wanted.shape[1:], mode="bilinear", align_corners=False)
    losses = functional.cross_entropy(scores, wanted, ignore_index=UNKNOWN, reduction="none")
    return (losses.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)).sum()


def random_projection(outputs: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Return the outputs weighted by random normal numbers and summed.

    Over such projections, the mean square of a derivative is that of the derivative of all outputs, each of them
    divided by its spread in each image, so that none counts more for being larger. `UsageError` if no output has one.
    """
    parts = [out for out in outputs if out.is_floating_point() and out.requires_grad]
    if not parts:
        raise UsageError(
            "no output says which channels matter",
            why="none that is a floating-point number depends on the layers that would lose channels",
            help="rank them by their weights: prune-channels{ranking=layer criterion=l1}",
        )
    return torch.stack(
        [(out * torch.randn(out.shape, generator=generator) / _spread(out)).sum() for out in parts]
    ).sum()


def _spread(output: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of an output in each image, one where there is none, to divide the output by."""
    values = output.detach().flatten(1) if output.ndim > 1 else output.detach().reshape(1, -1)
    spread = values.std(1) if values.shape[1] > 1 else values.new_ones(len(values))
    return spread.masked_fill(spread == 0, 1.0).view(-1, *[1] * (output.ndim - 1)) if output.ndim else spread[0]


def relative_error(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the squared error of outputs, each relative to its own variance, or to its square if it is one number; the
    mean over those that are floats."""
    floats = [(a, b) for a, b in zip(found, wanted, strict=True) if b.is_floating_point()]
    sizes = [b.var() if b.numel() > 1 else b.square().mean() for _, b in floats]
    errors = [(a - b).square().mean() / size.clamp(min=1e-12) for (a, b), size in zip(floats, sizes, strict=True)]
    return torch.stack(errors).mean() if errors else torch.zeros(())
