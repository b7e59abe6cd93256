"""Operators that move or repeat elements: maps from the index of the result to an index of the operand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from tvm import tirx

from lvc.backends.tvm.ops.operands import broadcast, cast
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, Scope, scalar_of

aten = torch.ops.aten


def reshape_array(scope: Scope, array: Array, shape: Sequence[int]) -> Array:
    """The same elements in row-major order under another shape."""

    def read(index: Index) -> Expr:
        offset: Expr = 0
        for size, i in zip(shape, index, strict=True):
            offset = scope.simplify(offset * size + i)
        inner = []
        for axis, size in enumerate(array.shape):
            stride = math.prod(array.shape[axis + 1 :])
            i = 0 if size == 1 else offset // stride
            inner.append(scope.simplify(i if axis == 0 or size == 1 else i % size))
        return array.read(inner)

    return Array(tuple(shape), array.dtype, read)


@lowers(aten.reshape.default)
def reshape(call: Call) -> Array:
    """The same elements in row-major order under another shape."""
    return reshape_array(call.scope, call["self"], call.shape)


@lowers(aten.permute.default)
def permute(call: Call) -> Array:
    """Dimension i of the result is dimension dims[i] of the operand."""
    operand: Array = call["self"]
    rank = len(operand.shape)
    dims = [d % rank for d in call["dims"]]

    def read(index: Index) -> Expr:
        inner: list[Expr] = [0] * rank
        for i, d in zip(index, dims, strict=True):
            inner[d] = i
        return operand.read(inner)

    return call.result(read)


@lowers(aten.expand.default)
def expand(call: Call) -> Array:
    """Repeat dimensions of size 1 without a copy."""
    operand: Array = call["self"]
    return call.result(lambda index: broadcast(operand, index))


@lowers(aten.repeat.default)
def repeat(call: Call) -> Array:
    """Tile the operand."""
    operand: Array = call["self"]

    def read(index: Index) -> Expr:
        inner = index[len(index) - len(operand.shape) :]
        return operand.read([i % size for i, size in zip(inner, operand.shape, strict=True)])

    return call.result(read)


@lowers(aten.cat.default)
def concatenate(call: Call) -> Array:
    """Join along one dimension."""
    dim = call["dim"] % len(call.shape)
    parts: list[Array] = [part for part in call["tensors"] if math.prod(part.shape)]

    def read(index: Index) -> Expr:
        start = sum(part.shape[dim] for part in parts[:-1])
        chosen = _shifted(parts[-1], index, dim, -start, call.dtype)
        for part in reversed(parts[:-1]):
            start -= part.shape[dim]
            here = _shifted(part, index, dim, -start, call.dtype)
            chosen = tirx.if_then_else(index[dim] < start + part.shape[dim], here, chosen)
        return chosen

    return call.result(read)


def _shifted(array: Array, index: Index, dim: int, offset: int, dtype: str) -> Expr:
    return cast(array.read([i + offset if d == dim else i for d, i in enumerate(index)]), dtype)


@lowers(aten.slice.Tensor)
def slice_dimension(call: Call) -> Array:
    """Every step-th element of one dimension between start and end."""
    operand: Array = call["self"]
    dim = call["dim"] % len(operand.shape)
    size, start, step = operand.shape[dim], call["start"] or 0, call["step"]
    start = min(max(start + size if start < 0 else start, 0), size)
    return _remap(call, lambda d, i: start + i * step if d == dim else i)


def _remap(call: Call, function: Callable[[int, Expr], Expr]) -> Array:
    operand: Array = call["self"]
    return call.result(lambda index: operand.read([function(d, i) for d, i in enumerate(index)]))


@lowers(aten.roll.default)
def roll(call: Call) -> Array:
    """Shift elements along dimensions, those that fall off coming back at the other end."""
    operand: Array = call["self"]
    if not call["dims"]:
        flat = reshape_array(call.scope, operand, (math.prod(operand.shape),))
        shift, size = call["shifts"][0], flat.shape[0]
        rolled = Array(flat.shape, flat.dtype, lambda index: flat.read([_rolled(index[0], shift, size)]))
        return reshape_array(call.scope, rolled, call.shape)
    shifts = dict.fromkeys(range(len(call.shape)), 0)
    for dim, shift in zip(call["dims"], call["shifts"], strict=True):
        shifts[dim % len(call.shape)] += shift

    return _remap(call, lambda d, i: _rolled(i, shifts[d], call.shape[d]))


def _rolled(i: Expr, shift: int, size: int) -> Expr:
    """The place of which an element comes. As remainders, those of two neighbouring dimensions would be put together
    by TVM as if both had been shifted alike, and read past the end of a row."""
    before = shift % size if size else 0
    return tirx.Select(i < before, i + (size - before), i - before) if before else i


@lowers(aten.flip.default)
def flip(call: Call) -> Array:
    """Reverse dimensions."""
    dims = {d % len(call.shape) for d in call["dims"]}
    return _remap(call, lambda d, i: call.shape[d] - 1 - i if d in dims else i)


@lowers(aten.constant_pad_nd.default)
def constant_pad(call: Call) -> Array:
    """Grow dimensions, last one first, by a constant at both ends; negative amounts cut."""
    return pad_array(call["self"], call["pad"], call.shape, scalar_of(call["value"] or 0, call.dtype))


def pad_array(operand: Array, pad: Sequence[int], shape: Sequence[int], value: Expr) -> Array:
    """Pad an array with a value; ``pad`` is in PyTorch's order."""
    before = {len(shape) - 1 - i // 2: pad[i] for i in range(0, len(pad), 2)}

    def read(index: Index) -> Expr:
        inner = [i - before.get(d, 0) for d, i in enumerate(index)]
        inside: Expr = None
        for d, i in enumerate(inner):
            if shape[d] == operand.shape[d] and not before.get(d, 0):
                continue
            here = tirx.all(i >= 0, i < operand.shape[d])
            inside = here if inside is None else tirx.all(inside, here)
        element = operand.read(inner)
        return element if inside is None else tirx.if_then_else(inside, element, value)

    return Array(tuple(shape), operand.dtype, read)


@lowers(aten.pad.default)
def pad(call: Call) -> Array:
    """Pad by a constant, by reflection, by the edge or cyclically."""
    operand: Array = call["self"]
    amounts, mode = call["pad"], call["mode"]
    if mode == "constant":
        return pad_array(operand, amounts, call.shape, scalar_of(call["value"] or 0, call.dtype))
    before = {len(call.shape) - 1 - i // 2: amounts[i] for i in range(0, len(amounts), 2)}

    def source(d: int, i: Expr) -> Expr:
        size = operand.shape[d]
        if d not in before:
            return i
        i = i - before[d]
        if mode == "replicate":
            return tirx.max(tirx.min(i, size - 1), 0)
        if mode == "circular":
            return tirx.Select(i < 0, i + size, tirx.Select(i >= size, i - size, i))
        i = tirx.Select(i < 0, -i, i)
        return tirx.Select(i >= size, 2 * (size - 1) - i, i)

    return _remap(call, source)


@lowers(aten.index_select.default)
def index_select(call: Call) -> Array:
    """Take slices of one dimension by a vector of indices."""
    operand, indices = call["self"], call["index"]
    if not operand.shape:
        return call.result(lambda _: operand.read(()))
    dim = call["dim"] % len(operand.shape)
    size = operand.shape[dim]

    def read(index: Index) -> Expr:
        value = indices.read(() if not indices.shape else (index[dim],))
        return call.scope.lookup(
            index_of(value, size), size, lambda at: operand.read([at if d == dim else i for d, i in enumerate(index)])
        )

    return call.result(read)


def index_of(value: Expr, size: int) -> Expr:
    """A number from data as an index: negative ones count from the end, those outside are moved inside."""
    position = tirx.Cast("int32", value)
    position = tirx.Select(position < 0, position + size, position)
    return tirx.max(tirx.min(position, size - 1), 0)


@lowers(aten.gather.default)
def gather(call: Call) -> Array:
    """Take single elements along one dimension, at indices of the result's shape."""
    operand, indices = call["self"], call["index"]
    if not operand.shape:
        return call.result(lambda _: operand.read(()))
    dim = call["dim"] % len(operand.shape)
    size = operand.shape[dim]

    def read(index: Index) -> Expr:
        return call.scope.lookup(
            index_of(indices.read(index), size),
            size,
            lambda at: operand.read([at if d == dim else i for d, i in enumerate(index)]),
        )

    return call.result(read)


@lowers(aten.embedding.default)
def embedding(call: Call) -> Array:
    """Take rows of a table."""
    weight, indices = call["weight"], call["indices"]
    rows = weight.shape[0]
    return call.result(
        lambda index: call.scope.lookup(
            index_of(indices.read(index[:-1]), rows), rows, lambda at: weight.read((at, index[-1]))
        )
    )


@lowers(aten.pixel_shuffle.default)
def pixel_shuffle(call: Call) -> Array:
    """[.., C r r, H, W] to [.., C, H r, W r]."""
    operand, r = call["self"], call["upscale_factor"]

    def read(index: Index) -> Expr:
        *lead, c, y, x = index
        return operand.read([*lead, c * (r * r) + (y % r) * r + x % r, y // r, x // r])

    return call.result(read)


@lowers(aten.pixel_unshuffle.default)
def pixel_unshuffle(call: Call) -> Array:
    """[.., C, H r, W r] to [.., C r r, H, W]."""
    operand, r = call["self"], call["downscale_factor"]

    def read(index: Index) -> Expr:
        *lead, c, y, x = index
        return operand.read([*lead, c // (r * r), y * r + c // r % r, x * r + c % r])

    return call.result(read)
