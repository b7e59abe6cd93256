"""How far outputs moved, as one number: relative entropy of class probabilities, else relative squared error."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.compiler.ir.task import is_class_scores

_SUM = 1e-3


def divergence(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the mean over floating-point outputs of one batch.

    For class scores ``KL(p || q) = sum p log(p / q)`` in nats, the mean over images; for others the squared error over
    the sum of squares.
    """
    parts = [_of_output(y, z) for y, z in zip(wanted, found, strict=True) if y.is_floating_point()]
    return sum(parts) / max(1, len(parts))


def changed_choices(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the share of images whose first choice is another; for a model without class scores its divergence."""
    y, z = wanted[0], found[0]
    if not is_class_scores(tuple(y.shape)):
        return divergence(wanted, found)
    return float((y.flatten(1).argmax(1) != z.flatten(1).argmax(1)).double().mean())


def _of_output(wanted: torch.Tensor, found: torch.Tensor) -> float:
    y, z = wanted.double(), found.double()
    if not is_class_scores(tuple(y.shape)):
        return float((z - y).square().sum() / y.square().sum().clamp(min=1e-12))
    ours, theirs = _log_probabilities(y.flatten(1)), _log_probabilities(z.flatten(1))
    return float((ours.exp() * (ours - theirs)).sum(1).mean())


def _log_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Logarithms of probabilities: of the scores themselves if they are such, else by softmax."""
    if bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < _SUM).all()):
        return scores.clamp(min=1e-12).log()
    return scores.log_softmax(1)
