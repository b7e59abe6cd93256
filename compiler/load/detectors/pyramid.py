"""Regions of a pyramid: each is sampled in the level where it belongs, and in no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lvc.compiler.ir.operators import regions


def multiscale_roi_align(
    x_filtered: Sequence[Tensor],
    boxes: Sequence[Tensor],
    output_size: Sequence[int],
    sampling_ratio: int,
    scales: Sequence[float],
    mapper: Callable[[Sequence[Tensor]], Tensor],
) -> Tensor:
    """What `torchvision.ops.poolers` does with feature maps ``f32[n, c, h, w]`` and boxes ``f32[k, 4]`` of each image:
    ``f32[all k, c, *output_size]``."""
    numbers = [torch.full_like(each[:, :1], image) for image, each in enumerate(boxes)]
    rois = torch.cat([torch.cat(numbers), torch.cat(list(boxes))], 1)
    level = mapper(boxes) if len(x_filtered) > 1 else torch.zeros(len(rois), dtype=torch.int64)
    maps, samples = list(x_filtered), max(0, sampling_ratio)
    result: Tensor = regions.roi_align(maps, rois, level, list(scales), list(output_size), samples, False)
    return result
