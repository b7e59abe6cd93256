"""Mask R-CNN: masks of objects are pasted into the image by a product with a matrix along each axis."""

from __future__ import annotations

import torch
from torch import Tensor


def pasted(masks: Tensor, corners: Tensor, img_shape: tuple[int, int]) -> Tensor:
    """Masks ``f32[n, s, s]`` resized to the pixels that boxes ``i64[n, 4]`` cover, and zero outside of them:
    ``f32[n, height, width]``."""
    down = _rows(corners[:, 1], corners[:, 3], img_shape[0], masks.shape[1])
    across = _rows(corners[:, 0], corners[:, 2], img_shape[1], masks.shape[2])
    return down @ masks @ across.transpose(1, 2)


def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int = 1) -> Tensor:
    """What `torchvision.models.detection.roi_heads` does, mask by mask, with masks ``f32[n, 1, s, s]`` and boxes
    ``f32[n, 4]``: ``f32[n, 1, height, width]``, resized to the pixels that each box covers, and zero outside."""
    from torchvision.models.detection.roi_heads import expand_boxes, expand_masks

    masks, scale = expand_masks(masks, padding)
    corners = expand_boxes(boxes, scale).to(torch.int64)
    return pasted(masks[:, 0], corners, img_shape).unsqueeze(1)


def _rows(start: Tensor, end: Tensor, pixels: int, size: int) -> Tensor:
    """How much each of ``size`` elements of a mask weighs in each pixel, ``[n, pixels, size]``: bilinear resizing
    without aligned corners, to the pixels from ``start`` to ``end``."""
    length = (end - start + 1).clamp(min=1).reshape(-1, 1)
    place = torch.arange(pixels) - start.reshape(-1, 1)
    inside = (place >= 0) & (place < length)
    source = ((place.to(torch.float32) + 0.5) * (size / length) - 0.5).clamp(0, size - 1)
    weights = (1 - (source.unsqueeze(2) - torch.arange(size)).abs()).clamp(min=0)
    return torch.where(inside.unsqueeze(2), weights, torch.zeros_like(weights))
