"""Keypoint R-CNN: the points of objects are the peaks of heat maps that are resized to the objects' boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from lvc.compiler.ir.operators.heatmaps import peaks


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """What `torchvision.models.detection.roi_heads` does, box by box, with maps ``f32[n, k, h, w]`` and boxes
    ``f32[n, 4]``: points ``f32[n, k, 3]``, x, y and one, and scores ``f32[n, k]``. Sides are rounded up to pixels, and
    are one at least."""
    start = rois[:, :2]
    sides = (rois[:, 2:] - start).clamp(min=1)
    return located(maps, start, sides, sides.ceil())


def located(maps: Tensor, start: Tensor, sides: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The same of boxes that begin at ``start [n, 2]``, x and y, with so long sides, each of so many pixels."""
    found: Tensor = peaks(maps, pixels.flip(1).to(torch.int64))
    places = (found[:, :, :2].flip(2) + 0.5) * (sides / pixels).unsqueeze(1) + start.unsqueeze(1)
    return torch.cat([places, torch.ones_like(places[:, :, :1])], 2), found[:, :, 2]
