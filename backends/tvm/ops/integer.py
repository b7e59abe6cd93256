"""Integer operators in general form, each as `lvc.compiler.ir.operators.integer` defines it: right, seldom fast."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.ops.contractions import matrix_product, with_bias
from lvc.backends.tvm.ops.operands import broadcast
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, scalar_of
from lvc.compiler.ir.operators import integer

ROUNDER = 1.5 * 2**23
ROUNDER_BITS = 0x4B400000


def centred(value: Expr, zero_point: int) -> Expr:
    """The integer ``q - zero_point`` in 32 bits."""
    wide = tirx.Cast("int32", value)
    return wide - tirx.const(zero_point, "int32") if zero_point else wide


def _float(value: Expr) -> Expr:
    return tirx.Cast("float32", value)


def _stored(value: Expr, call: Call) -> Expr:
    """Round half to even, add the zero point, limit; the lower limit comes first, and is what becomes of NaN.

    Limits are integers, so limiting may come first. The sum with 1.5 * 2**23, whose last bit counts ones, is rounded to
    an integer and has it in its lowest bits; TVM would compute a rounding function lane by lane.
    """
    low, high, zero_point = call["low"], call["high"], call["zero_point"]
    limited = tirx.max(value, scalar_of(low - zero_point, "float32"))
    limited = tirx.min(limited, scalar_of(high - zero_point, "float32"))
    bits = tirx.reinterpret("int32", limited + scalar_of(ROUNDER, "float32"))
    return tirx.Cast(call.dtype, bits - tirx.const(ROUNDER_BITS - zero_point, "int32"))


def _along(values: Array, index: Index, axis: int) -> Expr:
    return values.read([0 if values.shape[0] == 1 else index[axis]])


@lowers(integer.quantise)
def quantise(call: Call) -> Array:
    """Real numbers to integers of 8 bits."""
    factor = scalar_of(integer.inverse(call["scale"]), "float32")
    return call.result(lambda index: _stored(call["x"].read(index) * factor, call))


@lowers(integer.dequantise)
def dequantise(call: Call) -> Array:
    """Integers of 8 bits to real numbers."""
    scale = scalar_of(float(np.float32(call["scale"])), "float32")
    return call.result(lambda index: _float(centred(call["q"].read(index), call["zero_point"])) * scale)


@lowers(integer.rescale)
def rescale(call: Call) -> Array:
    """Sums to real numbers."""
    return call.result(lambda index: _float(call["sums"].read(index)) * _along(call["scale"], index, call["axis"]))


@lowers(integer.requantise)
def requantise(call: Call) -> Array:
    """Sums to integers of 8 bits."""

    def read(index: Index) -> Expr:
        return _stored(_float(call["sums"].read(index)) * _along(call["multiplier"], index, call["axis"]), call)

    return call.result(read)


@lowers(integer.add)
def add(call: Call) -> Array:
    """A sum of two tensors that have scales and zero points of their own."""

    def term(name: str, index: Index) -> Expr:
        factor = integer.short_multiplier(call[f"multiplier_{name}"])
        return _float(centred(broadcast(call[name], index), call[f"zero_{name}"])) * scalar_of(factor, "float32")

    return call.result(lambda index: _stored(term("a", index) + term("b", index), call))


@lowers(integer.mul)
def mul(call: Call) -> Array:
    """Products of two tensors."""

    def factor(name: str, index: Index) -> Expr:
        return centred(broadcast(call[name], index), call[f"zero_{name}"])

    return call.result(lambda index: factor("a", index) * factor("b", index))


@lowers(integer.table)
def table(call: Call) -> Array:
    """One of 256 values for each number."""
    operand, values = call["q"], call["values"]
    least = -128 if operand.dtype == "int8" else 0
    whole = call.scope.constant(f"{call.node.name} table", values.constant.reshape(1, 256))

    def read(index: Index) -> Expr:
        place = centred(operand.read(index), least)
        return call.scope.lookup(place, 256, lambda at: whole.read((0, at)))

    return call.result(read)


@lowers(integer.conv2d)
def conv2d(call: Call) -> Array:
    """Sums over windows of products with int8 weights."""
    data, weight = call["input"], call["weight"]
    (sh, sw), (dh, dw) = call["stride"], call["dilation"]
    out, per_group, kh, kw = weight.shape
    c, i, j = (call.scope.axis(size, name) for size, name in ((per_group, "c"), (kh, "kh"), (kw, "kw")))

    def body(index: Index) -> Expr:
        n, o, y, x = index
        o = call.scope.clamp(o, out)
        channel = c.var if call["groups"] == 1 else (o // (out // call["groups"])) * per_group + c.var
        value = _inside(call, data, (n, channel, y * sh + i.var * dh, x * sw + j.var * dw))
        return te.sum(value * tirx.Cast("int32", weight.read([o, c.var, i.var, j.var])), axis=[c, i, j])

    return with_bias(call, call.scope.stage(call.shape, body, layout=call.layout), 1)


@lowers(integer.sum_pool2d)
def sum_pool2d(call: Call) -> Array:
    """Sums over windows."""
    (kh, kw), (sh, sw) = call["kernel_size"], call["stride"]
    i, j = call.scope.axis(kh, "kh"), call.scope.axis(kw, "kw")

    def body(index: Index) -> Expr:
        n, c, y, x = index
        return te.sum(_inside(call, call["q"], (n, c, y * sh + i.var, x * sw + j.var)), axis=[i, j])

    return call.scope.stage(call.shape, body, layout=call.layout)


def _inside(call: Call, data: Array, place: tuple[Expr, ...]) -> Expr:
    """``q - zero_point`` at a place of the padded image, zero where that is outside of the image."""
    n, c, y, x = place
    y, x = y - call["padding"][0], x - call["padding"][1]
    is_inside = call.scope.simplify(tirx.all(y >= 0, y < data.shape[2], x >= 0, x < data.shape[3]))
    value = centred(data.read([n, c, y, x]), call["zero_point"])
    return tirx.if_then_else(is_inside, value, tirx.const(0, "int32"))


@lowers(integer.matmul)
def matmul(call: Call) -> Array:
    """Products of stacks of matrices."""
    left, right = (_centred_array(call[name], call[f"zero_{name}"]) for name in ("self", "other"))
    return matrix_product(call, left, right)


def _centred_array(array: Array, zero_point: int) -> Array:
    return Array(array.shape, "int32", lambda index: centred(array.read(index), zero_point))


@lowers(integer.linear)
def linear(call: Call) -> Array:
    """Rows times the rows of an int8 weight."""
    data, weight = call["input"], call["weight"]
    k = call.scope.axis(weight.shape[1])

    def body(index: Index) -> Expr:
        value = centred(data.read([*index[:-1], k.var]), call["zero_point"])
        return te.sum(value * tirx.Cast("int32", weight.read([index[-1], k.var])), axis=k)

    return with_bias(call, call.scope.stage(call.shape, body), -1)
