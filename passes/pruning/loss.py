"""What a change of a model costs: the loss on labels, or, without labels, how far its outputs move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from lvc.compiler.errors import UsageError
from lvc.compiler.measure.evaluation import unknown_class


def classification_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a classifier's first output, summed over the batch."""
    scores = outputs[0].flatten(1)
    if int(labels.max()) >= scores.shape[1]:
        raise unknown_class(int(labels.max()), scores.shape[1])
    return functional.cross_entropy(scores, labels, reduction="sum")


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
