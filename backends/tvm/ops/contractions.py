"""Convolutions and matrix products in general form: right for every case, fast for none.

Rules of a device take the cases for which there is a kernel; what they leave comes here.
"""

from __future__ import annotations

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.ops.operands import broadcast
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, scalar_of

aten = torch.ops.aten


@lowers(aten.conv2d.default)
def conv2d(call: Call) -> Array:
    """Cross-correlation with stride, padding, dilation and groups."""
    data, weight, groups = call["input"], call["weight"], call["groups"]
    (sh, sw), (ph, pw), (dh, dw) = call["stride"], call["padding"], call["dilation"]
    height, width = data.shape[2:]
    out, per_group, kh, kw = weight.shape
    c, i, j = (call.scope.axis(size, name) for size, name in ((per_group, "c"), (kh, "kh"), (kw, "kw")))

    def body(index: Index) -> Expr:
        n, o, y, x = index
        o = call.scope.clamp(o, out)
        y, x = y * sh + i.var * dh - ph, x * sw + j.var * dw - pw
        channel = c.var if groups == 1 else (o // (out // groups)) * per_group + c.var
        inside = call.scope.simplify(tirx.all(y >= 0, y < height, x >= 0, x < width))
        value = tirx.if_then_else(inside, data.read([n, channel, y, x]), scalar_of(0, call.dtype))
        return te.sum(value * weight.read([o, c.var, i.var, j.var]), axis=[c, i, j])

    total = call.scope.stage(call.shape, body, layout=call.layout)
    return with_bias(call, total, 1)


@lowers(aten.conv_transpose2d.input)
def conv_transpose2d(call: Call) -> Array:
    """The gradient of a convolution: each input pixel adds a window to the output."""
    data, weight, groups = call["input"], call["weight"], call["groups"]
    (sh, sw), (ph, pw), (dh, dw) = call["stride"], call["padding"], call["dilation"]
    height, width = data.shape[2:]
    channels, out, kh, kw = weight.shape
    per_group = channels // groups
    c, i, j = (call.scope.axis(size, name) for size, name in ((per_group, "c"), (kh, "kh"), (kw, "kw")))

    def body(index: Index) -> Expr:
        n, o, y, x = index
        o = call.scope.clamp(o, out * groups)
        y, x = y + ph - i.var * dh, x + pw - j.var * dw
        channel = c.var if groups == 1 else (o // out) * per_group + c.var
        is_element = tirx.all(y >= 0, y < height * sh, x >= 0, x < width * sw, y % sh == 0, x % sw == 0)
        value = data.read([n, channel, y // sh, x // sw])
        value = tirx.if_then_else(call.scope.simplify(is_element), value, scalar_of(0, call.dtype))
        return te.sum(value * weight.read([channel, o % out, i.var, j.var]), axis=[c, i, j])

    total = call.scope.stage(call.shape, body, layout=call.layout)
    return with_bias(call, total, 1)


@lowers(aten.linear.default)
def linear(call: Call) -> Array:
    """Rows times the transposed weight."""
    data, weight = call["input"], call["weight"]
    k = call.scope.axis(weight.shape[1])

    def body(index: Index) -> Expr:
        row = weight.read([index[-1], k.var] if len(weight.shape) == 2 else [k.var])
        return te.sum(data.read([*index[:-1], k.var]) * row, axis=k)

    return with_bias(call, call.scope.stage(call.shape, body), -1)


@lowers(aten.matmul.default)
def matmul(call: Call) -> Array:
    """Matrix product with broadcast leading dimensions; vectors count as a row or a column."""
    return matrix_product(call, call["self"], call["other"])


def matrix_product(call: Call, first: Array, second: Array) -> Array:
    """The product of two arrays as a call's result."""
    left, right = _matrix(first, 0), _matrix(second, 1)
    k = call.scope.axis(left.shape[-1])
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    shape = (*batch, left.shape[-2], right.shape[-1])

    def body(index: Index) -> Expr:
        *lead, row, column = index
        return te.sum(_read(left, lead, row, k.var) * _read(right, lead, k.var, column), axis=k)

    total = call.scope.stage(shape, body, layout=PLAIN)
    one_left, one_right = len(first.shape) == 1, len(second.shape) == 1

    def read(index: Index) -> Expr:
        index = list(index)
        column = [0] if one_right else [index.pop()]
        row = [0] if one_left else [index.pop()]
        return total.read([*index, *row, *column])

    return call.result(read)


def _matrix(array: Array, axis: int) -> Array:
    """A vector as a matrix with one row (axis 0) or one column (axis 1)."""
    if len(array.shape) > 1:
        return array
    shape = (1, array.shape[0]) if axis == 0 else (array.shape[0], 1)
    return Array(shape, array.dtype, lambda index: array.read([index[1 - axis]]))


def _read(array: Array, lead: list[Expr], row: Expr, column: Expr) -> Expr:
    wanted = len(array.shape) - 2
    return broadcast(array, [*lead[len(lead) - wanted :], row, column])


def with_bias(call: Call, total: Array, dim: int) -> Array:
    """Add a bias along one dimension, if the call has one."""
    bias = call["bias"]
    if bias is None:
        return total
    return call.result(lambda index: total.read(index) + bias.read([index[dim]]))
