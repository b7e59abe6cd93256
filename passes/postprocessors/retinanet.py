"""RetinaNet's raw head: offsets from anchors, and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import check_strides, corners, moved
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class Retinanet(Step):
    """RetinaNet's raw ``offsets [images, n, 4]`` and ``scores [images, n, classes]``, level by level and cell by cell.

    Anchors of a cell have each ratio of height to width in turn, in sides that grow by an octave from level to level
    and in steps within it. They lie around the cell's first corner, in whole pixels, as torchvision has them. An offset
    is that of the centre in sides, and of the sides' logarithms. Lin et al., "Focal loss for dense object detection".
    """

    name: ClassVar[str] = "retinanet"

    strides: tuple[int, ...] = option((8, 16, 32, 64, 128), "pixels from cell to cell, level by level")
    sides: tuple[int, ...] = option((32, 64, 128, 256, 512), "sides of the least anchors, level by level")
    steps: int = option(3, "anchors of each ratio, in steps within an octave")
    ratios: tuple[float, ...] = option((0.5, 1.0, 2.0), "heights over widths")
    logits: bool = option(True, "scores have not been through the sigmoid yet")

    def __post_init__(self) -> None:
        check_strides(self.strides)
        if len(self.sides) != len(self.strides) or min(self.sides) < 1:
            raise UsageError(f"sides must be {len(self.strides)} numbers of pixels, one for each level")
        if self.steps < 1 or not self.ratios or min(self.ratios) <= 0:
            raise UsageError("steps must be from 1, and ratios numbers above 0")

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        centres, sides = self._anchors(size)
        count = len(centres)
        takes = f"two outputs, offsets [images, {count}, 4] and scores [images, {count}, classes]"
        offsets = self.only(values, lambda x: x.ndim == 3 and x.shape[1:] == (count, 4), takes)
        scores = self.only(values, lambda x: x.ndim == 3 and x.shape[1] == count and x.shape[2] != 4, takes)
        scores = scores.sigmoid() if self.logits else scores
        return {"boxes": corners(*moved(centres, sides, offsets, (1.0, 1.0))), "scores": scores}

    def _anchors(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Centres and sides of the anchors in pixels, ``f32[n, 2]``, x before y."""
        found = []
        for stride, side in zip(self.strides, self.sides, strict=True):
            lengths = torch.tensor([float(int(side * 2 ** (step / self.steps))) for step in range(self.steps)])
            tall = torch.tensor(self.ratios).sqrt().reshape(-1, 1)
            half = torch.stack([(lengths / tall).reshape(-1), (lengths * tall).reshape(-1)], 1) / 2
            boxes = torch.cat([-half, half], 1).round()
            counts = [-(-pixels // stride) for pixels in size]
            steps = [pixels // count for pixels, count in zip(size, counts, strict=True)]
            rows, columns = (torch.arange(count) * float(step) for count, step in zip(counts, steps, strict=True))
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            corner = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
            found.append((corner + boxes).reshape(-1, 4))
        anchors = torch.cat(found)
        sides = anchors[:, 2:] - anchors[:, :2]
        return anchors[:, :2] + sides / 2, sides
