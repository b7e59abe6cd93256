"""How far one model's outputs are from another's: signal to noise, first choices, and whether anything is left of them.

The signal-to-quantisation-noise ratio is ``SQNR = 10 log10(sum(y^2) / sum((y' - y)^2))`` in decibels: 6 dB a bit. Over
a whole output it can look well while most of it is lost, as when a detector's large box coordinates drown its small
class scores. So it is measured for each place of each dimension as well, on what varies: an output has collapsed when
in more than half the places of some dimension the error is as large as the variation. Over the whole output, what
varies is what differs between images: the places of anchors and a constant background are none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.measure.comparison.objects import ObjectPairs, object_pairs
from lvc.compiler.measure.comparison.signal import sqnr
from lvc.compiler.text import decibels, percent

_MOST_PLACES = 0.5
_ONE_BIT = 4.0  # of power
_ENOUGH = 8  # images; of fewer, such as three frames of a film, it is not known what differs
LEAST = 10.0
"""With fewer decibels, an error of a tenth of the power, an output is damaged wherever the error lies."""


@dataclass(frozen=True)
class OutputLoss:
    """One output over some images. ``sqnr`` is in dB. ``agreement`` is the share of equal first choices, or of equal
    numbers where the output is integers, such as a map of classes; None if it is neither these nor class scores.
    ``lost`` and ``damaged`` are the largest shares, over the dimensions, of places without information and of places
    with less than a bit of it.

    Of what a detector finds, ``of_objects``, these are shares of objects: those that are found again, those that are
    not, and those that are not found closely."""

    name: str
    sqnr: float
    agreement: float | None
    lost: float
    damaged: float
    of_objects: bool = False

    @property
    def has_collapsed(self) -> bool:
        return self.lost > _MOST_PLACES or self.sqnr == -math.inf

    @property
    def is_damaged(self) -> bool:
        return (self.damaged > _MOST_PLACES or self.is_weak) and not self.has_collapsed

    @property
    def is_weak(self) -> bool:
        return self.sqnr < LEAST

    @property
    def agreement_text(self) -> str:
        return "" if self.agreement is None else percent(self.agreement, 2)

    def __str__(self) -> str:
        what = "objects are found" if self.of_objects else "first choices agree"
        agreement = f", {self.agreement_text} of the {what}" if self.agreement_text else ""
        return f"'{self.name}': {decibels(self.sqnr)}{agreement}"


def makes_choices(output: TensorSpec) -> bool:
    """Whether an output has an agreement: it is class scores, or choices already made, which are integers."""
    return is_class_scores(output.shape) or not output.dtype.is_floating_point


def compare(name: str, wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> OutputLoss:
    """Compare one output of two models over the same batches.

    Where the first model gives NaN or an infinity and the second gives the same, nothing is lost.
    """
    y, other = _joined(wanted), _joined(found)
    agreement = None
    if not wanted[0].is_floating_point():
        agreement = float((y == other).double().mean())
    elif is_class_scores(wanted[0].shape):
        agreement = float((y.flatten(1).argmax(1) == other.flatten(1).argmax(1)).double().mean())
    alike = ~y.isfinite() & ((y == other) | (y.isnan() & other.isnan()))
    y, noise = y.masked_fill(alike, 0.0), (other - y).masked_fill(alike, 0.0)
    return OutputLoss(name, sqnr(y, noise), agreement, _lost(y, noise, 1.0), _lost(y, noise, _ONE_BIT))


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return (torch.cat(list(parts)) if parts[0].ndim else torch.stack(list(parts))).double()


def compare_all(
    model: Model, wanted: Sequence[Sequence[torch.Tensor]], found: Sequence[Sequence[torch.Tensor]]
) -> list[OutputLoss]:
    """Compare all outputs of two models of one signature, given for each batch.

    Objects that a detector finds are matched, and how many there are is no matter of its own.
    """
    objects = object_pairs(model, wanted, found)
    counted = {
        model.counts[model.output_names[place]].name for place in objects if model.output_names[place] in model.counts
    }
    return [
        _of_objects(name, objects[place])
        if place in objects
        else compare(name, [outputs[place] for outputs in wanted], [outputs[place] for outputs in found])
        for place, name in enumerate(model.output_names)
        if name not in counted
    ]


def objects_lost(
    model: Model, wanted: Sequence[Sequence[torch.Tensor]], found: Sequence[Sequence[torch.Tensor]]
) -> list[OutputLoss]:
    """The same of objects alone; none for a model that detects nothing."""
    return [
        _of_objects(model.output_names[place], pairs) for place, pairs in object_pairs(model, wanted, found).items()
    ]


def _of_objects(name: str, pairs: ObjectPairs) -> OutputLoss:
    error = sqnr(pairs.wanted, pairs.found - pairs.wanted)
    found = 1 - pairs.lost if "boxes" in name else None
    return OutputLoss(name, error, found, pairs.lost, pairs.damaged, of_objects=True)


def _lost(y: torch.Tensor, noise: torch.Tensor, least: float) -> float:
    """Return the largest share of places, over each dimension and the whole, that vary at most ``least`` times as much
    as their error, in power."""
    dims = [dim for dim in range(1, y.ndim) if y.shape[dim] > 1]
    varying = y - y.mean(0) if y.ndim > 1 and len(y) >= _ENOUGH else y
    places = [(varying.reshape(1, -1), noise.reshape(1, -1))]
    places += [(y.movedim(dim, 0).flatten(1), noise.movedim(dim, 0).flatten(1)) for dim in dims]
    return max(_lost_share(values, errors, least) for values, errors in places)


def _lost_share(values: torch.Tensor, errors: torch.Tensor, least: float) -> float:
    variation = (values - values.mean(1, keepdim=True)).square().sum(1)
    lost = least * errors.square().sum(1) >= variation
    return float(lost[variation > 0].double().mean()) if bool((variation > 0).any()) else 0.0
