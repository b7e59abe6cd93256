"""The raw head of YOLOX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import STRIDES, cells, check_strides, corners, count_cells
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Yolox(Step):
    """YOLOX's raw head ``[images, cells, 5+classes]``: centre, sides, objectness and classes of each cell.

    A centre is in cells from the corner of its cell, sides are logarithms in cells; the score of a class is its
    probability times the objectness. Ge et al., "YOLOX: exceeding YOLO series in 2021".
    """

    name: ClassVar[str] = "yolox"

    strides: tuple[int, ...] = option(STRIDES, "pixels from cell to cell, level by level")
    logits: bool = option(False, "objectness and classes have not been through the sigmoid yet")

    def __post_init__(self) -> None:
        check_strides(self.strides)

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        count = count_cells(size, self.strides)
        takes = f"one output [images, {count}, 5+classes], a row for each cell of {size[0]}x{size[1]} pixels"
        raw = self.only(values, lambda x: x.ndim == 3 and x.shape[1] == count and x.shape[2] > 5, takes)
        places, strides = cells(size, self.strides)
        chances = raw[..., 4:].sigmoid() if self.logits else raw[..., 4:]
        boxes = corners((raw[..., :2] + places) * strides, raw[..., 2:4].exp() * strides)
        return {"boxes": boxes, "scores": chances[..., :1] * chances[..., 1:]}
