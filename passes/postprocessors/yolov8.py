"""The head of YOLOv8, and of YOLO11, as it is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import STRIDES, check_strides, corners, count_cells
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Yolov8(Step):
    """The head of YOLOv8 and YOLO11 as exported, ``[images, 4+classes, cells]``: centre, sides in pixels, classes."""

    name: ClassVar[str] = "yolov8"

    strides: tuple[int, ...] = option(STRIDES, "pixels from cell to cell, level by level")

    def __post_init__(self) -> None:
        check_strides(self.strides)

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        count = count_cells(size, self.strides)
        takes = f"one output [images, 4+classes, {count}], a column for each cell of {size[0]}x{size[1]} pixels"
        raw = self.only(values, lambda x: x.ndim == 3 and x.shape[2] == count and x.shape[1] > 4, takes)
        rows = raw.transpose(1, 2)
        return {"boxes": corners(rows[..., :2], rows[..., 2:4]), "scores": rows[..., 4:]}
