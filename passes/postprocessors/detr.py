"""The heads of DETR and RT-DETR as exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import corners
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Detr(Step):
    """DETR's and RT-DETR's ``logits [images, queries, classes]`` and ``boxes [images, queries, 4]``.

    Boxes are centres and sides as shares of the picture's sides. Follow it by ``nms{iou=none}``: queries find an object
    once. With the softmax the last class is that of no object, and left out.
    """

    name: ClassVar[str] = "detr"

    activation: Literal["sigmoid", "softmax", "none"] = option("sigmoid", "what makes probabilities of the logits")

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        takes = "two outputs, logits [images, queries, classes] and boxes [images, queries, 4]"
        boxes = self.only(values, lambda x: x.ndim == 3 and x.shape[2] == 4, takes)
        scores = self.only(values, lambda x: x.ndim == 3 and x.shape[:2] == boxes.shape[:2] and x.shape[2] != 4, takes)
        if self.activation == "softmax":
            scores = scores.softmax(-1)[..., :-1]
        elif self.activation == "sigmoid":
            scores = scores.sigmoid()
        height, width = size
        sides = torch.tensor([width, height], dtype=torch.float32)
        return {"boxes": corners(boxes[..., :2] * sides, boxes[..., 2:] * sides), "scores": scores}
