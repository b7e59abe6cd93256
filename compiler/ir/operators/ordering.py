"""Operators whose elements wait for one another: sorting, writing at computed places, and non-maximum suppression.

Each works along the last dimension, on its own for every place of those before it.
"""

from __future__ import annotations

import torch

from lvc.compiler.ir.operators.library import operator, operators_of

REDUCTIONS = ("none", "sum", "prod", "amax", "amin")
"""What `scatter` does with what was there before."""


@operator("argsort(Tensor x, bool descending, int? most=None) -> Tensor")
def argsort(x: torch.Tensor, descending: bool, most: int | None = None) -> torch.Tensor:
    """The order of elements, ``i64``: equal ones stay in the order in which they are, and NaN is the greatest.

    With ``most``, from 1 to their number, those that stand first in it alone: ``i64[..., most]``.
    """
    _demand(x)
    order = x.argsort(dim=-1, descending=descending, stable=True)
    if most is None:
        return order
    if not 1 <= most <= x.shape[-1]:
        raise TypeError(f"there are no {most} elements in {tuple(x.shape)} along the last dimension")
    return order[..., :most].clone(memory_format=torch.contiguous_format)


@operator("scatter(Tensor x, Tensor index, Tensor updates, str reduce) -> Tensor")
def scatter(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor, reduce: str) -> torch.Tensor:
    """``x[..., n]`` with updates ``[..., m]`` put at ``index [..., m]``, from the first to the last; or combined with
    what is there. Indices lie in ``[0, n)``."""
    _demand(x)
    if index.shape != updates.shape or index.shape[:-1] != x.shape[:-1] or index.dtype != torch.int64:
        raise TypeError(f"indices {tuple(index.shape)} do not say where in {tuple(x.shape)} updates go")
    if updates.dtype != x.dtype or reduce not in REDUCTIONS:
        raise TypeError(f"{updates.dtype} is not put into {x.dtype} by '{reduce}'")
    result = x.clone(memory_format=torch.contiguous_format)
    if reduce != "none":
        return result.scatter_reduce_(-1, index, updates, reduce)
    if x.is_meta:
        return result
    for place in range(index.shape[-1]):
        result.scatter_(-1, index[..., place : place + 1], updates[..., place : place + 1])
    return result


@operator("nms(Tensor boxes, Tensor valid, float iou_threshold, Tensor? groups=None) -> Tensor")
def nms(
    boxes: torch.Tensor, valid: torch.Tensor, iou_threshold: float, groups: torch.Tensor | None = None
) -> torch.Tensor:
    """Which boxes ``[..., n, 4]``, corners x1 y1 x2 y2 in order of preference, stay: ``bool[..., n]``.

    A valid box stays unless one before it does with which its intersection over union is greater than the threshold,
    which is compared as it is, in double precision.
    With ``groups``, ``i64[..., n]``, boxes of different groups leave each other alone.
    """
    if not boxes.is_floating_point() or boxes.shape[-1] != 4 or valid.shape != boxes.shape[:-1]:
        raise TypeError(f"{tuple(boxes.shape)} of {boxes.dtype} are no boxes for {tuple(valid.shape)}")
    if groups is not None and (groups.shape != valid.shape or groups.dtype != torch.int64):
        raise TypeError(f"{tuple(groups.shape)} of {groups.dtype} are no groups for {tuple(valid.shape)}")
    keep = valid.to(torch.bool).clone(memory_format=torch.contiguous_format)
    if keep.is_meta:
        return keep
    x1, y1, x2, y2 = boxes.unbind(-1)
    areas = (x2 - x1) * (y2 - y1)
    for i in range(boxes.shape[-2] - 1):
        if not keep[..., i].any():
            continue
        one, rest = slice(i, i + 1), slice(i + 1, None)
        width = (torch.minimum(x2[..., one], x2[..., rest]) - torch.maximum(x1[..., one], x1[..., rest])).clamp(min=0)
        height = (torch.minimum(y2[..., one], y2[..., rest]) - torch.maximum(y1[..., one], y1[..., rest])).clamp(min=0)
        shared = width * height
        struck = (shared / (areas[..., one] + areas[..., rest] - shared)).double() > iou_threshold
        if groups is not None:
            struck &= groups[..., one] == groups[..., rest]
        keep[..., rest] &= ~(struck & keep[..., one])
    return keep


OPERATORS = operators_of(__name__)


def _demand(x: torch.Tensor) -> None:
    if not x.ndim:
        raise TypeError("a number has no dimension")
