"""The head of CenterNet, and of others that find objects as points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import corners
from lvc.passes.postprocess.step import Step, Values

_AROUND = 3  # cells, in which a peak is the greatest


@dataclass(frozen=True, kw_only=True)
class Centernet(Step):
    """CenterNet's heat map of each class ``[images, classes, h, w]``, and in this order sides and offsets of the centre
    ``[images, 2, h, w]``, x before y, in cells.

    A cell that is the greatest of its 3x3 neighbours stands for an object; all others have a score of zero. Follow it
    by ``nms{iou=none}``. Zhou et al., "Objects as points".
    """

    name: ClassVar[str] = "centernet"

    logits: bool = option(True, "the heat map has not been through the sigmoid yet")

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        takes = "three outputs in order, a heat map [images, classes, h, w], sides and offsets [images, 2, h, w]"
        given = [value.float() for value in values.values() if value.is_floating_point()]
        shapes = [tuple(value.shape) for value in given]
        if len(given) != 3 or len(shapes[0]) != 4 or {*shapes[1:]} != {(shapes[0][0], 2, *shapes[0][2:])}:
            raise self.unfit(values, takes)
        heat, sides, offsets = given
        rows, columns = shapes[0][2:]
        if size[0] % rows or size[1] % columns:
            raise self.unfit(values, f"{takes}, with h and w that divide {size[0]}x{size[1]}")
        heat = heat.sigmoid() if self.logits else heat
        peaks = functional.max_pool2d(heat, _AROUND, 1, _AROUND // 2)
        scores = torch.where(heat == peaks, heat, torch.zeros_like(heat))
        y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
        steps = torch.tensor([size[1] / columns, size[0] / rows])
        centres, spans = (_rows(value) * steps for value in (torch.stack([x, y])[None] + offsets, sides))
        return {"boxes": corners(centres, spans), "scores": _rows(scores)}


def _rows(x: Tensor) -> Tensor:
    """``[images, n, h, w]`` as a row of n for each cell."""
    return x.flatten(2).transpose(1, 2)
