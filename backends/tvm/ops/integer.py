"""Integer operators in general form, each as `lvc.compiler.ir.operators.integer` defines it: right, seldom fast."""

from __future__ import annotations

from collections.abc import Callable

from tvm import te, tirx

from lvc.backends.tvm.ops.contractions import matrix_product, with_bias
from lvc.backends.tvm.ops.operands import broadcast
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, Number, literal, scalar_of
from lvc.compiler.ir.operators import integer

ROUNDER = 1.5 * 2**23
ROUNDER_BITS = 0x4B400000


def centred(value: Expr, zero_point: Number) -> Expr:
    """The integer ``q - zero_point`` in 32 bits."""
    return tirx.Cast("int32", value) - zero_point()


def _float(value: Expr) -> Expr:
    return tirx.Cast("float32", value)


def _storing(call: Call) -> Callable[[Expr], Expr]:
    """Round half to even, add the zero point, limit; the lower limit comes first, and is what becomes of NaN.

    Limits are integers, so limiting may come first. The sum with 1.5 * 2**23, whose last bit counts ones, is rounded to
    an integer and has it in its lowest bits; TVM would compute a rounding function lane by lane.
    """
    zero_point = call["zero_point"]
    take = call.scope.numbers.take if zero_point else literal  # limits without a zero point are mostly the type's
    low, high = (take(call[limit] - zero_point, "float32") for limit in ("low", "high"))
    rounder = take(ROUNDER_BITS - zero_point, "int32")

    def store(value: Expr) -> Expr:
        limited = tirx.min(tirx.max(value, low()), high())
        bits = tirx.reinterpret("int32", limited + scalar_of(ROUNDER, "float32"))
        return tirx.Cast(call.dtype, bits - rounder())

    return store


def _scaling(call: Call, name: str) -> Callable[[Index], Expr]:
    """The factor of the sums at an index: one for all, or one for each place along an axis."""
    values, axis = call[name], call["axis"]
    if values.shape[0] > 1 or values.constant is None:
        return lambda index: values.read([0 if values.shape[0] == 1 else index[axis]])
    one = call.scope.numbers.take(values.constant.item(), "float32")
    return lambda _: one()


@lowers(integer.quantise)
def quantise(call: Call) -> Array:
    """Real numbers to integers of 8 bits."""
    factor, store = call.scope.numbers.take(integer.inverse(call["scale"]), "float32"), _storing(call)
    return call.result(lambda index: store(call["x"].read(index) * factor()))


@lowers(integer.dequantise)
def dequantise(call: Call) -> Array:
    """Integers of 8 bits to real numbers."""
    numbers = call.scope.numbers
    scale, zero_point = numbers.take(call["scale"], "float32"), numbers.take(call["zero_point"], "int32")
    return call.result(lambda index: _float(centred(call["q"].read(index), zero_point)) * scale())


@lowers(integer.rescale)
def rescale(call: Call) -> Array:
    """Sums to real numbers."""
    factor = _scaling(call, "scale")
    return call.result(lambda index: _float(call["sums"].read(index)) * factor(index))


@lowers(integer.requantise)
def requantise(call: Call) -> Array:
    """Sums to integers of 8 bits."""
    factor, store = _scaling(call, "multiplier"), _storing(call)
    return call.result(lambda index: store(_float(call["sums"].read(index)) * factor(index)))


@lowers(integer.add)
def add(call: Call) -> Array:
    """A sum of two tensors that have scales and zero points of their own."""
    numbers = call.scope.numbers

    def term(name: str) -> Callable[[Index], Expr]:
        factor = numbers.take(integer.short_multiplier(call[f"multiplier_{name}"]), "float32")
        zero_point = numbers.take(call[f"zero_{name}"], "int32")
        return lambda index: _float(centred(broadcast(call[name], index), zero_point)) * factor()

    a, b, store = term("a"), term("b"), _storing(call)
    return call.result(lambda index: store(a(index) + b(index)))


@lowers(integer.mul)
def mul(call: Call) -> Array:
    """Products of two tensors."""
    numbers = call.scope.numbers

    def factor(name: str) -> Callable[[Index], Expr]:
        zero_point = numbers.take(call[f"zero_{name}"], "int32")
        return lambda index: centred(broadcast(call[name], index), zero_point)

    a, b = factor("a"), factor("b")
    return call.result(lambda index: a(index) * b(index))


@lowers(integer.table)
def table(call: Call) -> Array:
    """One of 256 values for each number."""
    operand, values = call["q"], call["values"]
    least = -128 if operand.dtype == "int8" else 0
    whole = call.scope.constant(f"{call.node.name} table", values.constant.reshape(1, 256))

    def read(index: Index) -> Expr:
        place = centred(operand.read(index), literal(least, "int32"))
        return call.scope.lookup(place, 256, lambda at: whole.read((0, at)))

    return call.result(read)


@lowers(integer.conv2d)
def conv2d(call: Call) -> Array:
    """Sums over windows of products with int8 weights."""
    inside, weight = _inside(call, call["input"]), call["weight"]
    (sh, sw), (dh, dw) = call["stride"], call["dilation"]
    out, per_group, kh, kw = weight.shape
    c, i, j = (call.scope.axis(size, name) for size, name in ((per_group, "c"), (kh, "kh"), (kw, "kw")))

    def body(index: Index) -> Expr:
        n, o, y, x = index
        o = call.scope.clamp(o, out)
        channel = c.var if call["groups"] == 1 else (o // (out // call["groups"])) * per_group + c.var
        value = inside((n, channel, y * sh + i.var * dh, x * sw + j.var * dw))
        return te.sum(value * tirx.Cast("int32", weight.read([o, c.var, i.var, j.var])), axis=[c, i, j])

    return with_bias(call, call.scope.stage(call.shape, body, layout=call.layout), 1)


@lowers(integer.sum_pool2d)
def sum_pool2d(call: Call) -> Array:
    """Sums over windows."""
    (kh, kw), (sh, sw) = call["kernel_size"], call["stride"]
    i, j, inside = call.scope.axis(kh, "kh"), call.scope.axis(kw, "kw"), _inside(call, call["q"])

    def body(index: Index) -> Expr:
        n, c, y, x = index
        return te.sum(inside((n, c, y * sh + i.var, x * sw + j.var)), axis=[i, j])

    return call.scope.stage(call.shape, body, layout=call.layout)


def _inside(call: Call, data: Array) -> Callable[[Index], Expr]:
    """``q - zero_point`` at a place of the padded image, zero where that is outside of the image."""
    zero_point = call.scope.numbers.take(call["zero_point"], "int32")

    def read(place: Index) -> Expr:
        n, c, y, x = place
        y, x = y - call["padding"][0], x - call["padding"][1]
        is_inside = call.scope.simplify(tirx.all(y >= 0, y < data.shape[2], x >= 0, x < data.shape[3]))
        value = centred(data.read([n, c, y, x]), zero_point)
        return tirx.if_then_else(is_inside, value, tirx.const(0, "int32"))

    return read


@lowers(integer.matmul)
def matmul(call: Call) -> Array:
    """Products of stacks of matrices."""
    numbers = call.scope.numbers

    def whole(name: str) -> Array:
        array, zero_point = call[name], numbers.take(call[f"zero_{name}"], "int32")
        return Array(array.shape, "int32", lambda index: centred(array.read(index), zero_point))

    return matrix_product(call, whole("self"), whole("other"))


@lowers(integer.linear)
def linear(call: Call) -> Array:
    """Rows times the rows of an int8 weight."""
    data, weight = call["input"], call["weight"]
    k, zero_point = call.scope.axis(weight.shape[1]), call.scope.numbers.take(call["zero_point"], "int32")

    def body(index: Index) -> Expr:
        value = centred(data.read([*index[:-1], k.var]), zero_point)
        return te.sum(value * tirx.Cast("int32", weight.read([index[-1], k.var])), axis=k)

    return with_bias(call, call.scope.stage(call.shape, body), -1)
