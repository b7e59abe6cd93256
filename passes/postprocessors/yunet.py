"""The raw heads of YuNet, which finds faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import STRIDES, cells, check_strides, corners, count_cells
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Yunet(Step):
    """YuNet's raw heads ``cls_8``, ``obj_8``, ``bbox_8``, ... ``[images, cells, 1 or 4]``, by name, for each stride.

    Boxes are as YOLOX has them; the score of a face is the geometric mean of both probabilities, as OpenCV computes it.
    Its five landmarks are left out. Wu et al., "YuNet: a tiny millisecond-level face detector".
    """

    name: ClassVar[str] = "yunet"

    strides: tuple[int, ...] = option(STRIDES, "pixels from cell to cell, level by level")

    def __post_init__(self) -> None:
        check_strides(self.strides)

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        kinds = {"cls": 1, "obj": 1, "bbox": 4}
        wanted = {
            f"{kind}_{stride}": (count_cells(size, [stride]), kinds[kind]) for stride in self.strides for kind in kinds
        }
        for name, shape in wanted.items():
            if name not in values or tuple(values[name].shape[1:]) != shape:
                raise self.unfit(values, f"'{name}' [images, {shape[0]}, {shape[1]}] and the like for other strides")
        faces, objects, raw = (
            torch.cat([values[f"{kind}_{stride}"].float() for stride in self.strides], 1) for kind in kinds
        )
        places, strides = cells(size, self.strides)
        boxes = corners((raw[..., :2] + places) * strides, raw[..., 2:].exp() * strides)
        return {"boxes": boxes, "scores": (faces.clamp(0, 1) * objects.clamp(0, 1)).sqrt()}
