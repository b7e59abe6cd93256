"""Reductions over whole dimensions."""

from __future__ import annotations

import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.values import Value, constant, dtype_of, shape_of

aten = torch.ops.aten

_EMPTY = {"ReduceMax": "min", "ReduceMin": "max"}


def reduce(call: Call) -> Value:
    """Axes are an attribute before opset 18 (13 for ReduceSum), an operand from then on."""
    axes = call.ints_or_attribute(1, "axes", 13 if call.op == "ReduceSum" else 18)
    keep = bool(call.attribute("keepdims", 1))
    x, rank = call[0], call.rank()
    if not axes and call.attribute("noop_with_empty_axes", 0):
        axes = []
    elif not axes:
        axes = list(range(rank))
    dims = sorted(set(call.places(axes)))
    if any(shape_of(x)[dim] == 0 for dim in dims):
        return _of_nothing(call, x, dims, keep)
    before, reduction, after = _STEPS[call.op]
    value = before(call, x)
    if dims:
        value = reduction(call, value, dims, keep)
    return call.cast(after(call, value), dtype_of(x))


def _of_nothing(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    """Reduce dimensions of size 0 to the operation's neutral element."""
    shape = [1 if i in dims else size for i, size in enumerate(shape_of(x)) if keep or i not in dims]
    dtype = dtype_of(x)
    neutral: float = {"ReduceProd": 1, "ReduceLogSum": float("-inf"), "ReduceLogSumExp": float("-inf")}.get(call.op, 0)
    if call.op in _EMPTY:
        limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype) if dtype != torch.bool else None
        sign = -1 if call.op == "ReduceMax" else 1
        if limits is None:
            neutral = sign > 0
        else:
            neutral = sign * float("inf") if dtype.is_floating_point else getattr(limits, _EMPTY[call.op])
    return constant(torch.full(shape, neutral, dtype=dtype), dtype)


def _same(call: Call, x: Value) -> Value:
    return x


def _abs(call: Call, x: Value) -> Value:
    return call.emit(aten.abs.default, x)


def _square(call: Call, x: Value) -> Value:
    return call.emit(aten.mul.Tensor, x, x)


def _log(call: Call, x: Value) -> Value:
    return call.emit(aten.log.default, x)


def _sqrt(call: Call, x: Value) -> Value:
    return call.emit(aten.sqrt.default, x)


def _sum(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    return call.emit(aten.sum.dim_IntList, x, dims, keep)


def _mean(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    x = x if dtype_of(x).is_floating_point else call.cast(x, torch.float64)
    return call.emit(aten.mean.dim, x, dims, keep)


def _max(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    return call.emit(aten.amax.default, x, dims, keep)


def _min(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    return call.emit(aten.amin.default, x, dims, keep)


def _prod(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    for dim in reversed(dims):
        x = call.emit(aten.prod.dim_int, x, dim, keep)
    return x


def _log_sum_exp(call: Call, x: Value, dims: list[int], keep: bool) -> Value:
    """log(sum(exp(x - max))) + max, which cannot overflow; an infinite maximum is taken as 0."""
    x = x if dtype_of(x).is_floating_point else call.cast(x, torch.float64)
    largest = call.emit(aten.amax.default, x, dims, True)
    finite = call.emit(aten.where.self, call.emit(aten.isinf.default, largest), constant(0, dtype_of(x)), largest)
    powers = call.emit(aten.exp.default, call.emit(aten.sub.Tensor, x, finite))
    total = _log(call, call.emit(aten.sum.dim_IntList, powers, dims, True))
    result = call.emit(aten.add.Tensor, total, finite)
    kept = [size for i, size in enumerate(shape_of(result)) if keep or i not in dims]
    return call.reshape(result, kept)


_STEPS = {
    "ReduceSum": (_same, _sum, _same),
    "ReduceMean": (_same, _mean, _same),
    "ReduceMax": (_same, _max, _same),
    "ReduceMin": (_same, _min, _same),
    "ReduceProd": (_same, _prod, _same),
    "ReduceL1": (_abs, _sum, _same),
    "ReduceL2": (_square, _sum, _sqrt),
    "ReduceLogSum": (_same, _sum, _log),
    "ReduceLogSumExp": (_same, _log_sum_exp, _same),
    "ReduceSumSquare": (_square, _sum, _same),
}


converts(*_STEPS)(reduce)


@converts("ArgMax", "ArgMin")
def arg_extreme(call: Call) -> Value:
    """The first place of the extreme, or with ``select_last_index`` the last."""
    overload = aten.argmax.default if call.op == "ArgMax" else aten.argmin.default
    axis, keep = call.axis(0), bool(call.attribute("keepdims", 1))
    if not call.attribute("select_last_index", 0):
        return call.emit(overload, call[0], axis, keep)
    place = call.emit(overload, call.emit(aten.flip.default, call[0], [axis]), axis, keep)
    last = constant(call.shape()[axis] - 1)
    return call.emit(aten.sub.Tensor, last, place)
