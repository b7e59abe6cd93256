"""What the families of detectors share."""

from __future__ import annotations

import torch
from torch import Tensor

from lvc.compiler.ir.operators import ordering
from lvc.compiler.ir.operators.counted import counted


def clipped(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes ``[n, 4]`` inside an image of a height and a width."""
    height, width = shape
    corners = boxes.reshape(-1, 2, 2)
    return torch.stack([corners[..., 0].clamp(0, width), corners[..., 1].clamp(0, height)], -1).reshape(-1, 4)


def best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The largest along the last dimension, in order, and where they are; of equal ones those that stand first."""
    order = ordering.argsort(scores, True)[..., :most]
    return scores.gather(-1, order), order


def detections(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, most: int) -> dict[str, Tensor]:
    """The best of those candidates that are kept, as many as there are up to ``most``; no score is below zero."""
    _, first = best(torch.where(keep, scores, -torch.ones_like(scores)), most)
    first = counted(first, keep.sum().clamp(max=most), 0)
    names = {"boxes": boxes, "scores": scores, "labels": labels}
    return {name: values.index_select(0, first) for name, values in names.items()}
