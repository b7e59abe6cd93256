"""What two detectors find in the same images: objects are matched, since a list has them in the order of their scores.

Asked for are the objects of the first detector whose scores are above half of its greatest. One is met by an object of
the same class that overlaps it by half of their union, and has at least half of its score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from lvc.compiler.ir.counts import cut, visible
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import DetectionOutputs, detection_outputs

_SURE = 0.5
_OVERLAP = 0.5
_CLOSE = 0.75

Outputs = Sequence[Sequence[torch.Tensor]]
"""All outputs of a model, for each input."""


@dataclass(frozen=True)
class ObjectPairs:
    """The rows of one output for the objects that are asked for, and those that meet them: zero for none.

    ``overlaps`` are intersections over unions with what meets them, 0 for none.
    """

    wanted: torch.Tensor
    found: torch.Tensor
    overlaps: torch.Tensor

    @property
    def lost(self) -> float:
        """The share of objects that nothing meets."""
        return self._share(self.overlaps < _OVERLAP)

    @property
    def damaged(self) -> float:
        """The share of objects that nothing meets closely."""
        return self._share(self.overlaps < _CLOSE)

    def _share(self, which: torch.Tensor) -> float:
        return float(which.double().mean()) if len(which) else 0.0


def object_pairs(model: Model, wanted: Outputs, found: Outputs) -> dict[int, ObjectPairs]:
    """The pairs of each output that is a part of what is detected, by its place among the outputs."""
    seen = visible(model.outputs, model.counts)
    if not (groups := detection_outputs(seen)):
        return {}
    ours, theirs = ([_cut(model, parts) for parts in outputs] for outputs in (wanted, found))
    made: dict[int, ObjectPairs] = {}
    for group in groups:
        parts = list(_matched(group, ours, theirs))
        overlaps = torch.cat([overlap for _, _, overlap in parts])
        for place in (group.boxes, group.scores, group.labels, group.masks, group.keypoints):
            if place is not None:
                rows = [_rows(place, *part) for part in parts]
                made[place] = ObjectPairs(torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows]), overlaps)
    return made


def _cut(model: Model, outputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return cast("Sequence[torch.Tensor]", cut(model.outputs, model.counts, cast("Any", outputs)))


Match = tuple[Sequence[torch.Tensor], torch.Tensor]
"""The outputs for an image, and the rows of them."""


def _matched(group: DetectionOutputs, wanted: Outputs, found: Outputs) -> Iterator[tuple[Match, Match, torch.Tensor]]:
    """For each image the rows that are asked for, those that meet them, and how much they overlap."""
    greatest = max((float(parts[group.scores].max()) for parts in wanted if len(parts[group.scores])), default=0.0)
    for ours, theirs in zip(wanted, found, strict=True):
        rows = (ours[group.scores] > _SURE * greatest).nonzero().flatten()
        overlaps = _overlaps(ours[group.boxes][rows], theirs[group.boxes])
        is_other = ours[group.labels][rows, None] != theirs[group.labels]
        is_weak = theirs[group.scores] < _SURE * ours[group.scores][rows, None]
        overlaps = overlaps.masked_fill(is_other | is_weak, 0.0)
        if overlaps.shape[1]:
            best, place = overlaps.max(1)
        else:
            best, place = overlaps.new_zeros(len(rows)), torch.full((len(rows),), -1)
        best = best.masked_fill(best < _OVERLAP, 0.0)
        yield (ours, rows), (theirs, place.masked_fill(best == 0, -1)), best


def _rows(place: int, wanted: Match, found: Match, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ours = wanted[0][place][wanted[1]].double()
    theirs = torch.zeros_like(ours)
    met = found[1] >= 0
    theirs[met] = found[0][place][found[1][met]].double()
    return ours, theirs


def _overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersections over unions of boxes ``[n, 4]`` and ``[m, 4]``: ``[n, m]``, 0 for what is empty or no number."""
    a, b = a.double(), b.double()
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (a, b)]
    return (shared / (areas[0][:, None] + areas[1] - shared)).nan_to_num(0.0, 0.0, 0.0)
