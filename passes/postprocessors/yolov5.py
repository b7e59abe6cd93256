"""The head of YOLOv5, and of YOLOv3 and v7, as it is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import STRIDES, check_strides, corners, count_cells
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Yolov5(Step):
    """The head of YOLOv5, v3 and v7 as exported, ``[images, boxes, 5+classes]``: centre, sides, objectness, classes.

    Boxes are in pixels, with some for each cell, one an anchor; the score of a class is its probability times the
    objectness.
    """

    name: ClassVar[str] = "yolov5"

    strides: tuple[int, ...] = option(STRIDES, "pixels from cell to cell, level by level")
    anchors: int = option(3, "boxes of each cell")

    def __post_init__(self) -> None:
        check_strides(self.strides)

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        count = self.anchors * count_cells(size, self.strides)
        takes = (
            f"one output [images, {count}, 5+classes], {self.anchors} rows for each cell of {size[0]}x{size[1]} pixels"
        )
        raw = self.only(values, lambda x: x.ndim == 3 and x.shape[1] == count and x.shape[2] > 5, takes)
        boxes = corners(raw[..., :2], raw[..., 2:4])
        return {"boxes": boxes, "scores": raw[..., 4:5] * raw[..., 5:]}
