"""Picking elements by index, and putting them in place by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.normalise import ordering
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.ops.movement import sliced
from lvc.compiler.load.onnx_importer.rules import by_rule
from lvc.compiler.load.onnx_importer.values import (
    Constant,
    Value,
    check_size,
    constant,
    dtype_of,
    shape_of,
)

aten = torch.ops.aten


def _wrapped(call: Call, indices: Value, size: int | Sequence[int]) -> Value:
    """Count negative indices from the front, as int64; constant ones out of range are refused.

    Index vectors, which lie along the last axis, have a size for each place.
    """
    indices = call.cast(indices, torch.int64)
    if isinstance(indices, Constant):
        values, sizes = indices.tensor, torch.tensor(size)
        if not bool(((-sizes <= values) & (values < sizes)).all()):
            raise ValueError(f"an index lies outside of {size} elements")
        return constant(torch.where(values < 0, values + sizes, values))
    return call.emit(aten.remainder.Tensor, indices, constant(size))


@converts("Gather")
def gather(call: Call) -> Value:
    axis = call.axis(0)
    shape = call.shape()
    indices = _wrapped(call, call[1], shape[axis])
    result = [*shape[:axis], *shape_of(indices), *shape[axis + 1 :]]
    if isinstance(indices, Constant) and indices.tensor.numel():
        places = indices.tensor.flatten().tolist()
        if places == list(range(places[0], places[0] + len(places))):
            return call.reshape(sliced(call, call[0], axis, places[0], places[-1] + 1), result)
    flat = call.reshape(indices, [math.prod(shape_of(indices))])
    return call.reshape(call.emit(aten.index_select.default, call[0], axis, flat), result)


@converts("GatherElements")
def gather_elements(call: Call) -> Value:
    axis = call.axis(0)
    return call.emit(aten.gather.default, call[0], axis, _wrapped(call, call[1], call.shape()[axis]))


def _linear_index(call: Call, indices: Value, sizes: Sequence[int]) -> Value:
    """Turn index vectors (the last axis) over ``sizes`` into one index each into the flattened sizes."""
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    indices = _wrapped(call, indices, sizes)
    scaled = call.emit(aten.mul.Tensor, indices, constant(strides))
    return call.emit(aten.sum.dim_IntList, scaled, [-1], False)


@converts("GatherND")
def gather_nd(call: Call) -> Value:
    batch = int(call.attribute("batch_dims", 0))
    shape, index_shape = call.shape(), call.shape(1)
    depth = index_shape[-1]
    sizes, rest = shape[batch : batch + depth], shape[batch + depth :]
    index = _linear_index(call, call[1], sizes)
    if batch:
        offsets = torch.arange(math.prod(shape[:batch])).reshape(*shape[:batch], *[1] * (len(index_shape) - 1 - batch))
        index = call.emit(aten.add.Tensor, index, constant(offsets * math.prod(sizes)))
    rows = call.reshape(call[0], [math.prod(shape[: batch + depth]), *rest])
    flat = call.reshape(index, [math.prod(index_shape[:-1])])
    return call.reshape(call.emit(aten.index_select.default, rows, 0, flat), [*index_shape[:-1], *rest])


@converts("ScatterND", "ScatterElements", "Scatter")
def scatter(call: Call) -> Value:
    """With known indices: data and updates in a row, from which each element of the result is picked."""
    reduction = call.attribute("reduction", "none")
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction cannot be '{reduction}'")
    if reduction != "none" or not isinstance(call[1], Constant):
        return _scattered(call, _REDUCTIONS[reduction])
    shape, updates = call.shape(), call[2]
    indices = call.tensor(1, "indices").to(torch.int64)
    if call.op == "ScatterND":
        depth = indices.shape[-1]
        rows, rest = math.prod(shape[:depth]), list(shape[depth:])
        index = _linear_index(call, Constant(indices), shape[:depth])
        assert isinstance(index, Constant)
        target = index.tensor.flatten()
    else:
        rows, rest = math.prod(shape), []
        axis = call.axis(0)
        grid = list(torch.meshgrid(*(torch.arange(size) for size in indices.shape), indexing="ij"))
        wrapped = _wrapped(call, Constant(indices), shape[axis])
        assert isinstance(wrapped, Constant)
        grid[axis] = wrapped.tensor
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        target = torch.stack([place * stride for place, stride in zip(grid, strides, strict=True)]).sum(0).flatten()
    source = torch.arange(rows)
    for number, place in enumerate(target.tolist()):
        source[place] = rows + number
    pool = [call.reshape(call[0], [rows, *rest]), call.reshape(updates, [len(target), *rest])]
    picked = call.emit(aten.index_select.default, call.emit(aten.cat.default, pool, 0), 0, constant(source))
    return call.reshape(picked, shape)


_REDUCTIONS = {"none": "none", "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scattered(call: Call, reduce: str) -> Value:
    """Updates one after the other, at places that may be computed."""
    shape, result = call.shape(), None
    if call.op != "ScatterND":
        axis = call.axis(0)
        result = by_rule(call, ordering.scatter, call[0], axis, _wrapped(call, call[1], shape[axis]), call[2], reduce)
    else:
        last = call.rank(1) - 1
        parts = [sliced(call, call[1], last, i, i + 1) for i in range(call.shape(1)[last])]
        indices = [call.reshape(part, call.shape(1)[:-1]) for part in parts]
        result = by_rule(call, ordering.put, call[0], indices, call[2], reduce)
    assert isinstance(result, Value)
    return result


@converts("TopK")
def top(call: Call) -> list[Value]:
    """The largest or smallest along an axis, in order; how many is an attribute before opset 10."""
    count = int(call.number(1, "k") if call.opset >= 10 else call.attribute("k"))
    axis = call.axis(-1)
    if not 0 < count <= call.shape()[axis]:
        raise ValueError(f"{count} of {call.shape()[axis]} elements are asked for")
    call.attribute("sorted", 1)  # those that need no order may have one
    values, places = by_rule(call, ordering.top, call[0], count, axis, bool(call.attribute("largest", 1)))
    return [values, places]


@converts("OneHot")
def one_hot(call: Call) -> Value:
    """on where the new axis counts to the index, off elsewhere; an index out of range is off everywhere."""
    depth = int(call.number(1, "depth"))
    check_size(TensorSpec((*call.shape(), depth), torch.int64))
    rank = call.rank() + 1
    axis = call.axis(-1, rank)
    place = [1] * rank
    place[axis] = depth
    indices = call.cast(call[0], torch.int64)
    wrapped = call.emit(
        aten.where.self,
        call.emit(aten.lt.Tensor, indices, constant(0)),
        call.emit(aten.add.Tensor, indices, depth),
        indices,
    )
    spread = call.reshape(wrapped, [*call.shape()[:axis], 1, *call.shape()[axis:]])
    hit = call.emit(aten.eq.Tensor, spread, constant(torch.arange(depth).reshape(place)))
    off, on = (call.reshape(sliced(call, call[2], 0, i, i + 1), []) for i in range(2))
    return call.emit(aten.where.self, hit, on, off)


@converts("Trilu")
def triangle(call: Call) -> Value:
    rows, columns = call.shape()[-2:]
    k = int(call.number(1, "diagonal", 0))
    distance = torch.arange(columns) - torch.arange(rows)[:, None]
    keep = distance >= k if call.attribute("upper", 1) else distance <= k
    return call.emit(aten.where.self, constant(keep, torch.bool), call[0], constant(0, dtype_of(call[0])))
