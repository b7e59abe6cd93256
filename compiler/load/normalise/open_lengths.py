"""Calls whose result is as long as the data say, in forms of the largest length that carry their count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from lvc.compiler.load import selection
from lvc.compiler.load.normalise.builder import Rule, call_on_meta
from lvc.compiler.load.normalise.composite import composite

aten = torch.ops.aten


def indexed(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """``x[indices]`` with every mask as the coordinates of what it selects."""
    result: Tensor = aten.index.Tensor(x, _spread(indices, selection.coordinates))
    return result


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, mask.shape)  # type: ignore[no-untyped-call]
    return selection.masked(x.expand(shape), mask.expand(shape))


def _coordinates(x: Tensor) -> tuple[Tensor, ...]:
    return selection.coordinates(selection.truth(x))


SELECTED: dict[str, Rule] = {
    "torchvision.nms.default": composite(selection.nms),
    "aten.nonzero.default": composite(selection.non_zero),
    "aten.masked_select.default": composite(_masked_select),
    **dict.fromkeys(("aten.where.default", "aten.nonzero_numpy.default"), composite(_coordinates)),
}


OPEN = (aten.masked_select.default, aten.where.default, aten.nonzero_numpy.default)
"""Those of them that are PyTorch's own and have no other rule."""


def is_open(overload: OpOverload, args: Sequence[Any]) -> bool:
    """Whether the length of a call's result depends on the data; its operands have a type."""
    if overload is aten.index.Tensor:
        return any(map(is_mask, args[1]))
    return str(overload) in SELECTED


def is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def largest(overload: OpOverload, args: Sequence[Any]) -> Tensor | list[Tensor]:
    """A tensor without data as the largest result of such a call, of operands without data, or one for each result."""
    x: Tensor = args[0]
    if overload in (aten.where.default, aten.nonzero_numpy.default):
        return _places(x)
    if overload is aten.index.Tensor:
        result: Tensor = call_on_meta(overload, (x, _spread(args[1], _places)), {})
        return result
    if overload is aten.masked_select.default:
        return x.new_empty(torch.broadcast_shapes(x.shape, args[1].shape).numel())  # type: ignore[no-untyped-call]
    is_list = overload is not aten.nonzero.default  # of boxes
    shape = (x.shape[0],) if is_list else (x.numel(), x.ndim) if x.ndim else (1, 0)
    return x.new_empty(shape, dtype=torch.int64)


def _spread(indices: Sequence[Tensor | None], coordinates: Any) -> list[Tensor | None]:
    spread: list[Tensor | None] = []
    for index in indices:
        spread += coordinates(selection.truth(index)) if index is not None and is_mask(index) else [index]
    return spread


def _places(mask: Tensor) -> list[Tensor]:
    return [mask.new_empty(mask.numel(), dtype=torch.int64)] * mask.ndim
