"""SSD's boxes and classes as exported, with the default boxes applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Ssd(Step):
    """SSD's ``boxes [images, n, 4]``, corners, and ``scores [images, n, 1+classes]`` with the background first.

    The offsets have been applied to the default boxes, as exports do. Classes are numbered without the background.
    """

    name: ClassVar[str] = "ssd"

    relative: bool = option(True, "corners are shares of the picture's sides, not pixels")
    logits: bool = option(False, "scores have not been through the softmax yet")

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        takes = "two outputs, boxes [images, n, 4] and scores [images, n, 1+classes]"
        boxes = self.only(values, lambda x: x.ndim == 3 and x.shape[2] == 4, takes)
        scores = self.only(values, lambda x: x.ndim == 3 and x.shape[:2] == boxes.shape[:2] and x.shape[2] != 4, takes)
        if scores.shape[2] < 2:
            raise self.unfit(values, takes)
        if self.logits:
            scores = scores.softmax(-1)
        height, width = size
        if self.relative:
            boxes = boxes * torch.tensor([width, height, width, height], dtype=torch.float32)
        return {"boxes": boxes, "scores": scores[..., 1:]}
