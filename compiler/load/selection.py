"""Selections whose number of elements depends on the data, in PyTorch code of fixed shapes, marked by `counted`.

Each has its largest length: a mask may take every element that it is for. What is not selected stands behind what is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lvc.compiler.ir.operators import ordering
from lvc.compiler.ir.operators.counted import counted


def places(mask: Tensor) -> Tensor:
    """Where the elements of a mask ``bool[...]`` are true, ``i64[numel]``, in the order of memory."""
    flat = mask.reshape(-1)
    found: Tensor = counted(ordering.argsort(flat, True), flat.sum(), 0)
    return found


def coordinates(mask: Tensor) -> tuple[Tensor, ...]:
    """The same as one index for each dimension."""
    if mask.ndim == 1:
        return (places(mask),)
    flat, found, every = places(mask), [], torch.arange(mask.numel())
    for dim, size in enumerate(mask.shape):
        behind = math.prod(mask.shape[dim + 1 :])
        table = every.div(max(behind, 1), rounding_mode="floor").remainder(max(size, 1))
        found.append(table.index_select(0, flat))
    return tuple(found)


def non_zero(x: Tensor) -> Tensor:
    """Coordinates of what is not zero, ``i64[numel, rank]``; of a number, as of a vector of one, without columns."""
    if not x.ndim:
        empty: Tensor = counted(x.new_zeros((1, 0), dtype=torch.int64), (x != 0).to(torch.int64), 0)
        return empty
    return torch.stack(coordinates(truth(x)), 1)


def truth(x: Tensor) -> Tensor:
    return x if x.dtype is torch.bool else x != 0


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """``x[mask]`` of a mask for the first dimensions of ``x``: ``[numel of mask, ...]``."""
    rows = x.reshape(-1, *x.shape[mask.ndim :])
    return rows.index_select(0, places(truth(mask)))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`torchvision.ops.nms`: of boxes ``f32[n, 4]`` with scores ``f32[n]`` those that stay, ``i64[n]``, best first."""
    order = ordering.argsort(scores, True)
    return _kept(
        order, ordering.nms(boxes.index_select(0, order), torch.ones_like(order, dtype=torch.bool), iou_threshold)
    )


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`torchvision.ops.batched_nms`: boxes of different classes, ``i64[n]``, leave each other alone."""
    order = ordering.argsort(scores, True)
    valid, groups = torch.ones_like(order, dtype=torch.bool), idxs.to(torch.int64).index_select(0, order)
    return _kept(order, ordering.nms(boxes.index_select(0, order), valid, iou_threshold, groups))


def _kept(order: Tensor, keep: Tensor) -> Tensor:
    found: Tensor = counted(order.index_select(0, ordering.argsort(keep, True)), keep.sum(), 0)
    return found


def onnx_nms(
    boxes: Tensor, scores: Tensor, *, most: int, iou_threshold: float, score_threshold: float | None, centres: bool
) -> Tensor:
    """ONNX ``NonMaxSuppression``: rows of image, class and box, ``i64[images * classes * most, 3]``.

    Of boxes ``f32[images, n, 4]`` and scores ``f32[images, classes, n]``, at most ``most`` of each class of an image,
    best first.
    """
    images, classes, size = scores.shape
    if score_threshold is not None:  # what is below it need not be sorted
        scores = torch.where(scores > score_threshold, scores, torch.full_like(scores, -torch.inf))
    order = ordering.argsort(scores, True)
    corners = _corners(boxes, centres)
    base = (torch.arange(images) * size).reshape(-1, 1, 1)
    sorted_boxes = corners.reshape(-1, 4).index_select(0, (order + base).reshape(-1)).reshape(*order.shape, 4)
    if score_threshold is None:
        valid = torch.ones_like(order, dtype=torch.bool)
    else:
        valid = scores.gather(2, order) > score_threshold
    keep = ordering.nms(sorted_boxes, valid, iou_threshold)
    first = ordering.argsort(keep, True, most)
    stays, box = keep.gather(2, first), order.gather(2, first)
    image = torch.arange(images).reshape(-1, 1, 1).expand(box.shape)
    number = torch.arange(classes).reshape(1, -1, 1).expand(box.shape)
    return _rows(torch.stack([image, number, box], 3), stays)


def onnx_nms_of_one_class_each(
    boxes: Tensor,
    keys: Tensor,
    classes: Tensor,
    *,
    count: int,
    iou_threshold: float,
    score_threshold: float,
    centres: bool,
) -> Tensor:
    """ONNX ``NonMaxSuppression`` of boxes ``f32[images, n, 4]``, each with a score ``f32[images, n]`` in one class,
    ``i64[images, n]``, if that is one of ``count``: as many rows as there are boxes, since every class takes all."""
    above = (keys > score_threshold) & (classes >= 0) & (classes < count)
    order = ordering.argsort(torch.where(above, keys, torch.full_like(keys, -torch.inf)), True)
    image = torch.arange(order.shape[0]).reshape(-1, 1)
    flat = _corners(boxes, centres).reshape(-1, 4).index_select(0, (order + image * order.shape[1]).reshape(-1))
    groups = classes.gather(1, order)
    keep = ordering.nms(flat.reshape(*order.shape, 4), above.gather(1, order), iou_threshold, groups)
    by_class = ordering.argsort(torch.where(keep, groups, torch.full_like(groups, count)), False)
    columns = image.expand(order.shape), groups.gather(1, by_class), order.gather(1, by_class)
    return _rows(torch.stack(columns, 2), keep.gather(1, by_class))


def _rows(rows: Tensor, stays: Tensor) -> Tensor:
    """Those rows ``[..., 3]`` that stay, ``bool[...]``, in order."""
    flat = stays.reshape(-1)
    found: Tensor = counted(rows.reshape(-1, 3).index_select(0, ordering.argsort(flat, True)), flat.sum(), 0)
    return found


def _corners(boxes: Tensor, centres: bool) -> Tensor:
    """The lesser corner before the greater one, of two corners in any order; or those of a centre and a size, of which
    a negative one overlaps with nothing."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centres:
        return torch.cat([first - second / 2, first + second / 2], -1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)
