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
    order = ordering.argsort(scores, True, min(most, scores.shape[-1]))
    return scores.gather(-1, order), order


def best_pairs(scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of ``scores [anchors, classes]``, with their anchors and classes.

    They lie in those anchors whose largest scores are the largest, so that few of all pairs need to be sorted.
    """
    size, classes = scores.shape
    few = min(most, size)
    anchors = best(scores.amax(1), few)[1]
    anchors = anchors.index_select(0, ordering.argsort(anchors, False))
    values, order = best(scores.index_select(0, anchors).reshape(-1), min(most, few * classes))
    row = ((order.to(torch.float64) + 0.5) / classes).floor().to(torch.int64)  # half a step from any other row
    return values, anchors.index_select(0, row), order - row * classes


def detections(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, most: int) -> dict[str, Tensor]:
    """The best of those candidates that are kept, as many as there are up to ``most``; no score is below zero."""
    _, first = best(torch.where(keep, scores, -torch.ones_like(scores)), most)
    first = counted(first, keep.sum().clamp(max=most), 0)
    names = {"boxes": boxes, "scores": scores, "labels": labels}
    return {name: values.index_select(0, first) for name, values in names.items()}
