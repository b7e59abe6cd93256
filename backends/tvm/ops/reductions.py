"""Operators that reduce whole dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tvm import te, tirx

from lvc.backends.tvm.comparisons import different, is_float, is_number, truth, untruth
from lvc.backends.tvm.extremes import larger, largest, smaller, smallest
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.ops.operands import cast
from lvc.backends.tvm.ops.table import LOWERINGS, Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, Scope, let, scalar_of

aten = torch.ops.aten

_product = te.comm_reducer(lambda x, y: x * y, lambda dtype: tirx.const(1, dtype), name="product")
Reducer = Callable[..., Any]
_COMBINE: dict[Reducer, Callable[[Expr, Expr], Expr]] = {
    te.sum: lambda x, y: x + y,
    largest: larger,
    smallest: smaller,
}


def dims_of(dims: Sequence[int] | int | None, rank: int) -> tuple[int, ...]:
    """Dimensions counted from the front; none given means all."""
    if not rank:
        return ()
    if isinstance(dims, int):
        dims = [dims]
    return tuple(sorted(d % rank for d in dims)) if dims else tuple(range(rank))


def reduced_shape(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, ...]:
    """The shape with the reduced dimensions kept as 1."""
    return tuple(1 if d in dims else size for d, size in enumerate(shape))


def reduce(
    scope: Scope,
    shape: Sequence[int],
    read: Callable[[Index], Expr],
    dims: Sequence[int],
    reducer: Reducer,
    *,
    layout: Layout = PLAIN,
) -> Array:
    """Reduce dimensions of what ``read`` gives, keeping them as 1, in stages of its own."""
    if tuple(dims) == (len(shape) - 1,) and shape[-1] >= 2 * scope.lanes and reducer in _COMBINE and not layout.block:
        return _reduce_rows(scope, shape, read, reducer)

    axes = {d: scope.axis(shape[d], f"k{d}") for d in dims}

    def body(index: Index) -> Expr:
        inner = [axes[d].var if d in axes else i for d, i in enumerate(index)]
        return reducer(read(inner), axis=list(axes.values()))

    return scope.stage(reduced_shape(shape, dims), body, layout=layout)


def _reduce_rows(scope: Scope, shape: Sequence[int], read: Callable[[Index], Expr], reducer: Reducer) -> Array:
    """Reduce the last dimension by vectors, then the lanes of the last vector and what did not fill one."""
    *lead, size = shape
    count, rest = divmod(size, scope.lanes)
    step, lane = scope.axis(count, "step"), scope.axis(scope.lanes, "lane")
    partial = scope.stage(
        (*lead, scope.lanes),
        lambda index: reducer(read([*index[:-1], step.var * scope.lanes + index[-1]]), axis=[step]),
    )
    total = scope.stage((*lead, 1), lambda index: reducer(partial.read([*index[:-1], lane.var]), axis=[lane]))
    if not rest:
        return total
    last = scope.axis(rest, "last")
    tail = scope.stage((*lead, 1), lambda index: reducer(read([*index[:-1], size - rest + last.var]), axis=[last]))
    return Array(total.shape, total.dtype, lambda index: _COMBINE[reducer](total.read(index), tail.read(index)))


def stage_layout(call: Call, operand: Array, dims: Sequence[int]) -> Layout:
    """The layout for a stage that keeps the operand's rank: blocked only if its channels stay."""
    return call.layout if len(operand.shape) == 4 and 1 not in dims else PLAIN


def dropped(call: Call, kept: Array, dims: Sequence[int], finish: Callable[[Expr], Expr] = lambda x: x) -> Array:
    """The result of a reduction: reduced dimensions removed unless the call keeps them, and a last step applied."""
    if len(call.shape) == len(kept.shape):
        return call.result(lambda index: finish(kept.read(index)))

    def read(index: Index) -> Expr:
        rest = iter(index)
        return finish(kept.read([0 if d in dims else next(rest) for d in range(len(kept.shape))]))

    return call.result(read)


def _simple(reducer: Reducer) -> Callable[[Call], Array]:
    def lower(call: Call) -> Array:
        operand: Array = call["self"]
        dims = dims_of(call["dim"], len(operand.shape))
        kept = reduce(
            call.scope,
            operand.shape,
            lambda index: cast(operand.read(index), call.dtype),
            dims,
            reducer,
            layout=stage_layout(call, operand, dims),
        )
        return dropped(call, kept, dims)

    return lower


LOWERINGS[aten.sum.dim_IntList] = _simple(te.sum)
LOWERINGS[aten.prod.dim_int] = _simple(_product)
LOWERINGS[aten.amax.default] = _simple(largest)
LOWERINGS[aten.amin.default] = _simple(smallest)


@lowers(aten.mean.dim)
def mean(call: Call) -> Array:
    """The mean over dimensions."""
    operand: Array = call["self"]
    dims = dims_of(call["dim"], len(operand.shape))
    count = math.prod(operand.shape[d] for d in dims)
    total = reduce(call.scope, operand.shape, operand.read, dims, te.sum, layout=stage_layout(call, operand, dims))
    return dropped(call, total, dims, lambda x: x * scalar_of(1 / count, call.dtype))


@lowers(aten.linalg_vector_norm.default)
def vector_norm(call: Call) -> Array:
    """(sum |x|^p)^(1/p), with the limits for p of 0 and infinity."""
    operand, order = call["self"], float(call["ord"])
    dims = dims_of(call["dim"], len(operand.shape))
    zero, one = scalar_of(0, call.dtype), scalar_of(1, call.dtype)

    def term(index: Index) -> Expr:
        value = cast(operand.read(index), call.dtype)
        if order == 2:
            return let(value, lambda v: v * v)
        if order == 0:
            return tirx.Select(different(value, zero), one, zero)
        if order in (1, math.inf, -math.inf):
            return tirx.abs(value)
        return tirx.pow(tirx.abs(value), scalar_of(order, call.dtype))

    reducer = {math.inf: largest, -math.inf: smallest}.get(order, te.sum)
    total = reduce(call.scope, operand.shape, term, dims, reducer, layout=stage_layout(call, operand, dims))
    if order == 2:
        return dropped(call, total, dims, tirx.sqrt)
    if order in (0, 1, math.inf, -math.inf):
        return dropped(call, total, dims)
    return dropped(call, total, dims, lambda x: tirx.pow(x, scalar_of(1 / order, call.dtype)))


@lowers(aten.argmax.default, aten.argmin.default)
def extreme_index(call: Call) -> Array:
    """The first index of the largest (smallest) element along a dimension, or of all elements in order; that of the
    first NaN if there is one."""
    from lvc.backends.tvm.ops.movement import reshape_array

    operand: Array = call["self"]
    reducer = largest if call.node.target is aten.argmax.default else smallest
    if call["dim"] is None or not operand.shape:
        operand = reshape_array(call.scope, operand, (math.prod(operand.shape),))
    dims = dims_of(call["dim"], len(operand.shape))
    extreme = reduce(call.scope, operand.shape, operand.read, dims, reducer)
    limit = tirx.const(operand.shape[dims[0]], "int64")

    def position(index: Index) -> Expr:
        value = operand.read(index)
        found = value == extreme.read([0 if d in dims else i for d, i in enumerate(index)])
        if is_float(value):
            found = tirx.Or(truth(found), untruth(is_number(value)))
        return tirx.Select(found, tirx.Cast("int64", index[dims[0]]), limit)

    first = reduce(call.scope, operand.shape, position, dims, smallest)
    return dropped(call, first, dims)


@lowers(aten.cumsum.default)
def cumulative_sum(call: Call) -> Array:
    """Sums of all elements up to each one, along a dimension; quadratic in its size."""
    operand: Array = call["self"]
    if not operand.shape:
        return operand
    dim = call["dim"] % len(operand.shape)
    axis = call.scope.axis(operand.shape[dim])

    def body(index: Index) -> Expr:
        inner = [axis.var if d == dim else i for d, i in enumerate(index)]
        value = cast(operand.read(inner), call.dtype)
        return te.sum(
            let(value, lambda v: tirx.Select(axis.var <= index[dim], v, tirx.const(0, call.dtype))), axis=axis
        )

    return call.scope.stage(call.shape, body)
