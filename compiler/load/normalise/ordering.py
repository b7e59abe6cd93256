"""Sorting, and writing at places that are computed: both along the last dimension, whichever it is in the call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch._ops import OpOverload

from lvc.compiler.ir.operators import ordering
from lvc.compiler.load.normalise.arithmetic import cast, mul
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.indexing import linear_index
from lvc.compiler.load.normalise.movement import axis, cut, expand, permute, reshape, slice_scatter

aten = torch.ops.aten

_REDUCTIONS = {"sum": "sum", "add": "sum", "prod": "prod", "multiply": "prod", "amax": "amax", "amin": "amin"}


def order(b: Builder, x: Operand, dim: int = -1, descending: bool = False, *, most: int | None = None) -> Operand:
    """The places of elements in order, or of the first few, as indices along a dimension."""
    if not x.rank:
        return b.scalar(0, torch.int64)
    few = () if most is None or most == x.shape[axis(x, dim)] else (most,)
    found = b.call(ordering.argsort, _last(b, x, dim), descending, *few)
    return _back(b, found, axis(x, dim))


def _sort(b: Builder, x: Operand, dim: int = -1, descending: bool = False) -> tuple[Operand, ...]:
    places = order(b, x, dim, descending)
    return b.call(aten.gather.default, x, axis(x, dim), places) if x.rank else x, places


def _sort_stable(
    b: Builder, x: Operand, *, stable: bool | None = True, dim: int = -1, descending: bool = False
) -> tuple[Operand, ...]:
    return _sort(b, x, dim, descending)


def _order_stable(b: Builder, x: Operand, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Operand:
    return order(b, x, dim, descending)


def top(
    b: Builder, x: Operand, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Operand, ...]:
    """The first of them all in order: of equal ones those that stand first."""
    if not x.rank:
        return x, order(b, x)
    places = cut(b, order(b, x, dim, largest, most=k or None), axis(x, dim), 0, k)
    return b.call(aten.gather.default, x, axis(x, dim), places), places


def scatter(b: Builder, x: Operand, dim: int, index: Operand, updates: Operand, reduce: str = "none") -> Operand:
    """Updates at indices of their shape, which may be smaller than ``x`` in the other dimensions."""
    if not x.rank:
        x, index, updates = (reshape(b, value, (1,)) for value in (x, index, updates))
        return reshape(b, scatter(b, x, 0, index, updates, reduce), ())
    dim = axis(x, dim)
    for d, size in enumerate(index.shape):
        updates = cut(b, updates, d, 0, size)
    part = x
    for d, size in enumerate(index.shape):
        part = cut(b, part, d, 0, size) if d != dim else part
    last = (_last(b, value, dim) for value in (part, index, updates))
    made = _back(b, b.call(ordering.scatter, *last, reduce), dim)
    return _put_back(b, x, made)


def _put_back(b: Builder, x: Operand, part: Operand) -> Operand:
    """A value whose first elements along every dimension are those of ``part``."""
    smaller = [d for d in range(x.rank) if part.shape[d] < x.shape[d]]
    if not smaller:
        return part
    d = smaller[0]
    beside = cut(b, x, d, 0, part.shape[d])
    return slice_scatter(b, x, _put_back(b, beside, part), d, 0, part.shape[d])


def _scatter_value(b: Builder, x: Operand, dim: int, index: Operand, value: float) -> Operand:
    return scatter(b, x, dim, index, _filled(b, value, index.shape, x.dtype))


def _scatter_reduced(b: Builder, x: Operand, dim: int, index: Operand, src: Operand, *, reduce: str) -> Operand:
    return scatter(b, x, dim, index, src, _REDUCTIONS[reduce])


def _scatter_reduce(
    b: Builder, x: Operand, dim: int, index: Operand, src: Operand, reduce: str, *, include_self: bool = True
) -> Operand:
    if reduce not in _REDUCTIONS:
        raise Unsupported(f"it puts the {reduce} of its updates")
    if not include_self:
        raise Unsupported("it leaves out what was there before")
    return scatter(b, x, dim, index, src, _REDUCTIONS[reduce])


def _index_add(b: Builder, x: Operand, dim: int, index: Operand, source: Operand, *, alpha: float = 1) -> Operand:
    """Slices are added to those that a vector of indices names."""
    source = source if alpha == 1 else cast(b, mul(b, source, alpha), x.dtype)
    return _whole_slices(b, x, dim, index, source, "sum")


def _index_copy(b: Builder, x: Operand, dim: int, index: Operand, source: Operand) -> Operand:
    return _whole_slices(b, x, dim, index, source, "none")


def _whole_slices(b: Builder, x: Operand, dim: int, index: Operand, source: Operand, reduce: str) -> Operand:
    if not x.rank:
        raise Unsupported("it changes a number")
    sizes = [1] * x.rank
    sizes[axis(x, dim)] = index.shape[0] if index.rank else 1
    places = expand(b, reshape(b, cast(b, index, torch.int64), sizes), source.shape)
    return scatter(b, x, dim, places, source, reduce)


def _index_put(
    b: Builder, x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False
) -> Operand:
    """A mask is a choice between the old and one new value."""
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices if index is not None):
        return _masked(b, x, indices, values, accumulate)
    return put(b, x, indices, values, "sum" if accumulate else "none")


def put(b: Builder, x: Operand, indices: Sequence[Operand | None], values: Operand, reduce: str) -> Operand:
    """``x[indices] = values``, or combined with what is there: the indexed dimensions become one, the last."""
    given = [index for index in indices if index is not None]
    dims = [d for d, index in enumerate(indices) if index is not None]
    if dims != list(range(dims[0], dims[-1] + 1)):
        raise Unsupported("the dimensions that it indexes are not neighbours")
    rest = [d for d in range(x.rank) if d not in dims]
    shape = np.broadcast_shapes(*(index.shape for index in given))
    flat = linear_index(b, given, [x.shape[d] for d in dims])
    count, sizes = math.prod(shape), [x.shape[d] for d in rest]
    whole = (*sizes[: dims[0]], *shape, *sizes[dims[0] :])
    spread = permute(b, expand(b, cast(b, values, x.dtype), whole), _order_with_last(len(whole), dims[0], len(shape)))
    updates = reshape(b, spread, (*sizes, count))
    places = expand(b, reshape(b, flat, (*[1] * len(sizes), count)), (*sizes, count))
    turned = permute(b, x, [*rest, *dims])
    flat_x = reshape(b, turned, (*sizes, math.prod(x.shape[d] for d in dims)))
    made = b.call(ordering.scatter, flat_x, places, updates, reduce)
    made = reshape(b, made, turned.shape)
    return permute(b, made, [[*rest, *dims].index(d) for d in range(x.rank)])


def _order_with_last(rank: int, start: int, count: int) -> list[int]:
    """Dimensions with ``count`` of them from ``start`` on at the end."""
    moved = range(start, start + count)
    return [*(d for d in range(rank) if d not in moved), *moved]


def _masked(b: Builder, x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool) -> Operand:
    (mask, *others) = indices
    if others or mask is None or accumulate or math.prod(values.shape) != 1 or mask.dtype is not torch.bool:
        raise Unsupported("it writes as many values as a mask has true elements")
    choice = reshape(b, mask, (*mask.shape, *[1] * (x.rank - mask.rank)))
    return b.call(aten.where.self, choice, reshape(b, cast(b, values, x.dtype), ()), x)


def _take_along(b: Builder, x: Operand, index: Operand, dim: int | None = None) -> Operand:
    if dim is None:
        return b.call(aten.gather.default, reshape(b, x, (-1,)), 0, reshape(b, index, (-1,)))
    dim = axis(x, dim)
    sizes = [max(have, want) for have, want in zip(x.shape, index.shape, strict=True)]
    x = expand(b, x, [x.shape[d] if d == dim else size for d, size in enumerate(sizes)])
    index = expand(b, index, [index.shape[d] if d == dim else size for d, size in enumerate(sizes)])
    return b.call(aten.gather.default, x, dim, index)


def _kth(b: Builder, x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Operand, ...]:
    values, places = top(b, x, k, dim, largest=False)
    if not x.rank:
        return values, places
    parts = [cut(b, part, axis(x, dim), k - 1, k) for part in (values, places)]
    shape = [size for d, size in enumerate(x.shape) if d != axis(x, dim)]
    return tuple(parts if keepdim else (reshape(b, part, shape) for part in parts))


def _filled(b: Builder, value: float, shape: Sequence[int], dtype: torch.dtype) -> Operand:
    return b.constant(torch.full(tuple(shape), value, dtype=dtype))


def _last(b: Builder, x: Operand, dim: int) -> Operand:
    dim = axis(x, dim)
    return permute(b, x, [*(d for d in range(x.rank) if d != dim), dim])


def _back(b: Builder, x: Operand, dim: int) -> Operand:
    order_ = [*(d for d in range(x.rank) if d != dim), dim]
    return permute(b, x, [order_.index(d) for d in range(x.rank)])


ORDERING: dict[OpOverload, Rule] = {
    aten.sort.default: _sort,
    aten.sort.stable: _sort_stable,
    aten.argsort.default: order,
    aten.argsort.stable: _order_stable,
    aten.topk.default: top,
    aten.kthvalue.default: _kth,
    aten.scatter.src: scatter,
    aten.scatter.value: _scatter_value,
    aten.scatter.reduce: _scatter_reduced,
    aten.scatter_add.default: lambda b, x, dim, index, src: scatter(b, x, dim, index, src, "sum"),
    aten.scatter_reduce.two: _scatter_reduce,
    aten.index_add.default: _index_add,
    aten.index_copy.default: _index_copy,
    aten.index_put.default: _index_put,
    aten.take_along_dim.default: _take_along,
}
