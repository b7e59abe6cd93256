"""SSD's raw head: offsets from default boxes, and classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.postprocess.boxes import check_strides, corners, moved
from lvc.passes.postprocess.step import Step, Values


@dataclass(frozen=True, kw_only=True)
class SsdOffsets(Step):
    """SSD's raw ``offsets [images, n, 4]`` and ``scores [images, n, 1+classes]`` with the background first.

    Each cell of a level has a square box of its scale, one of the geometric mean with the next scale, and for each
    ratio a wide and a tall one. An offset is that of the centre in sides, and of the sides' logarithms, both over a
    variance. The defaults are SSD300's. Classes are numbered without the background. Liu et al., "SSD: single shot
    multibox detector".
    """

    name: ClassVar[str] = "ssd-offsets"

    strides: tuple[int, ...] = option((8, 16, 32, 64, 100, 300), "pixels from cell to cell, level by level")
    even: bool = option(False, "cells divide the picture evenly, whatever the stride that says how many there are")
    scales: tuple[float, ...] = option(
        (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), "sides of boxes as shares of the picture's, one more than levels"
    )
    ratios: str = option("2/2,3/2,3/2,3/2/2", "ratios of the sides of other boxes, with commas; levels between slashes")
    variances: tuple[float, float] = option((0.1, 0.2), "what offsets of centres and of sides are multiplied by")
    clip: bool = option(True, "default boxes are no larger than the picture")
    logits: bool = option(True, "scores have not been through the softmax yet")

    def __post_init__(self) -> None:
        check_strides(self.strides)
        if len(self.scales) != len(self.strides) + 1 or min(self.scales) <= 0:
            raise UsageError(f"scales must be {len(self.strides) + 1} numbers above 0, one more than there are levels")
        if len(self._ratios()) != len(self.strides):
            raise UsageError(f"ratios must be given for {len(self.strides)} levels, as in ratios=2/2,3/2")
        if len(self.variances) != 2 or min(self.variances) <= 0:
            raise UsageError("variances must be two numbers above 0, such as variances=0.1,0.2")

    def __call__(self, values: Values, size: tuple[int, int]) -> dict[str, Tensor]:
        centres, sides = self._defaults(size)
        count = len(centres)
        takes = f"two outputs, offsets [images, {count}, 4] and scores [images, {count}, 1+classes]"
        offsets = self.only(values, lambda x: x.ndim == 3 and x.shape[1:] == (count, 4), takes)
        scores = self.only(values, lambda x: x.ndim == 3 and x.shape[1] == count and x.shape[2] not in (1, 4), takes)
        if self.logits:
            scores = scores.softmax(-1)
        return {"boxes": corners(*moved(centres, sides, offsets, self.variances)), "scores": scores[..., 1:]}

    def _ratios(self) -> list[list[float]]:
        try:
            found = [[float(ratio) for ratio in level.split(",") if ratio.strip()] for level in self.ratios.split("/")]
        except ValueError:
            found = []
        if any(not 0 < ratio < math.inf for level in found for ratio in level):
            found = []
        return found

    def _defaults(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Centres and sides of the default boxes in pixels, ``f32[n, 2]``, x before y."""
        whole = torch.tensor([size[1], size[0]], dtype=torch.float32)
        centres, sides = [], []
        for level, (stride, ratios) in enumerate(zip(self.strides, self._ratios(), strict=True)):
            scale, mean = self.scales[level], math.sqrt(self.scales[level] * self.scales[level + 1])
            pairs = [(scale, scale), (mean, mean)]
            for ratio in ratios:
                wide, tall = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
                pairs += [(wide, tall), (tall, wide)]
            shares = torch.tensor(pairs)
            shares = shares.clamp(max=1) if self.clip else shares
            counts = [-(-side // stride) for side in size]
            rows, columns = (torch.arange(count) + 0.5 for count in counts)
            step = [side / count for side, count in zip(size, counts, strict=True)] if self.even else [stride] * 2
            y, x = torch.meshgrid(rows * step[0], columns * step[1], indexing="ij")
            centres.append(torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, len(pairs), 2).reshape(-1, 2))
            sides.append((shares * whole).repeat(counts[0] * counts[1], 1))
        return torch.cat(centres), torch.cat(sides)
