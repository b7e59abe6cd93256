"""Operators that compute one element from the elements of the same place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from tvm import tirx

from lvc.backends.tvm import math as vector
from lvc.backends.tvm.comparisons import different, is_float, is_number, truth, untruth
from lvc.backends.tvm.extremes import at_least, at_most, larger, smaller
from lvc.backends.tvm.ops.operands import broadcast, cast, common_dtype, element
from lvc.backends.tvm.ops.table import LOWERINGS, Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, dtype_of, factor_of, let, scalar_of

aten = torch.ops.aten


def _unary(function: Callable[[Expr], Expr]) -> Callable[[Call], Array]:
    """An operator on its operand named ``self``, computed in the type of the result."""

    def lower(call: Call) -> Array:
        operand = call["self"]
        return call.result(lambda index: function(cast(operand.read(index), call.dtype)))

    return lower


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[[Call], Array]:
    """An operator on ``self`` and ``other``, both converted to the type that PyTorch promotes them to."""

    def lower(call: Call) -> Array:
        dtype = common_dtype(call.node)

        def read(index: Index) -> Expr:
            return cast(function(*(element(call[name], index, dtype) for name in ("self", "other"))), call.dtype)

        return call.result(read)

    return lower


def _zero(x: Expr) -> Expr:
    return tirx.const(0, dtype_of(x))


def _relu6(x: Expr) -> Expr:
    return at_least(at_most(x, _number(x, 6)), _zero(x))


def _number(x: Expr, value: float) -> Expr:
    return tirx.const(value, dtype_of(x))


def _hardswish(x: Expr) -> Expr:
    return let(x, lambda v: v * (_relu6(v + _number(v, 3)) * _number(v, 1 / 6)))


def _hardsigmoid(x: Expr) -> Expr:
    return _relu6(x + _number(x, 3)) * _number(x, 1 / 6)


def _mish(x: Expr) -> Expr:
    """x * tanh(softplus(x)), which is x * u / (u + 2) with u = e^x * (e^x + 2)."""

    def ratio(v: Expr) -> Expr:
        e = vector.exp(at_most(v, _number(v, 20)))
        return let(e, lambda e: let(e * (e + _number(e, 2)), lambda u: v * (u / (u + _number(u, 2)))))

    return let(x, ratio)


def _sign(x: Expr) -> Expr:
    one = tirx.const(1, dtype_of(x))
    if "uint" in dtype_of(x):
        return tirx.min(x, one)
    return let(x, lambda v: tirx.Select(v > _zero(v), one, tirx.Select(v < _zero(v), -one, _zero(v))))


def _negative(x: Expr) -> Expr:
    return _zero(x) - x if "uint" in dtype_of(x) else -x


def _isnan(x: Expr) -> Expr:
    return untruth(is_number(x))


def _isinf(x: Expr) -> Expr:
    return truth(tirx.EQ(tirx.abs(x), tirx.infinity(dtype_of(x))))


def _on_float_operand(function: Callable[[Expr], Expr]) -> Callable[[Call], Array]:
    """A test of a floating-point operand; false for integers."""

    def lower(call: Call) -> Array:
        operand = call["self"]
        if "float" not in operand.dtype:
            return call.result(lambda _: tirx.const(False, "bool"))
        return call.result(lambda index: function(operand.read(index)))

    return lower


def _divisor(y: Expr) -> Expr:
    """A whole divisor of which the processor takes no harm: 0 has no remainder, and 1 gives that of -1, which is 0."""
    dtype = dtype_of(y)
    harmful = y == tirx.const(0, dtype)
    if "uint" not in dtype:
        harmful = tirx.Or(harmful, y == tirx.const(-1, dtype))
    return tirx.Select(harmful, tirx.const(1, dtype), y)


def _modulo(x: Expr, y: Expr) -> Expr:
    """Remainder with the sign of the divisor."""
    if not is_float(x):
        return tirx.floormod(x, _divisor(y))

    def signed(rest: Expr, b: Expr) -> Expr:
        return tirx.Select(tirx.any(rest * b >= _zero(b), rest == _zero(b)), rest, rest + b)

    return let(y, lambda b: let(_fmod(x, b), lambda rest: signed(rest, b)))


def _fmod(x: Expr, y: Expr) -> Expr:
    """Remainder with the sign of the dividend; exact, which no quotient of floats is where it is large."""
    if not is_float(x):
        return tirx.truncmod(x, _divisor(y))
    return tirx.call_pure_extern(dtype_of(x), "fmodf" if dtype_of(x) == "float32" else "fmod", x, y)


def _not(x: Expr) -> Expr:
    return tirx.Not(x)


_UNARY: dict[Any, Callable[[Expr], Expr]] = {
    aten.relu.default: lambda x: at_least(x, _zero(x)),
    aten.sigmoid.default: vector.sigmoid,
    aten.tanh.default: vector.tanh,
    aten.silu.default: vector.silu,
    aten.hardswish.default: _hardswish,
    aten.hardsigmoid.default: _hardsigmoid,
    aten.mish.default: _mish,
    aten.exp.default: vector.exp,
    aten.log.default: vector.log,
    aten.sqrt.default: tirx.sqrt,
    aten.rsqrt.default: lambda x: tirx.const(1, dtype_of(x)) / tirx.sqrt(x),
    aten.abs.default: tirx.abs,
    aten.neg.default: _negative,
    aten.floor.default: tirx.floor,
    aten.ceil.default: tirx.ceil,
    aten.sign.default: _sign,
    aten.reciprocal.default: lambda x: tirx.const(1, dtype_of(x)) / x,
    aten.erf.default: vector.erf,
    aten.sin.default: tirx.sin,
    aten.cos.default: tirx.cos,
    aten.tan.default: tirx.tan,
    aten.asin.default: tirx.asin,
    aten.acos.default: tirx.acos,
    aten.atan.default: tirx.atan,
    aten.sinh.default: tirx.sinh,
    aten.cosh.default: tirx.cosh,
    aten.asinh.default: tirx.asinh,
    aten.acosh.default: tirx.acosh,
    aten.atanh.default: tirx.atanh,
    aten.to.dtype: lambda x: x,
}
_BINARY: dict[Any, Callable[[Expr, Expr], Expr]] = {
    aten.mul.Tensor: lambda x, y: tirx.And(x, y) if dtype_of(x) == "bool" else x * y,
    aten.maximum.default: larger,
    aten.minimum.default: smaller,
    aten.remainder.Tensor: _modulo,
    aten.fmod.Tensor: _fmod,
    aten.eq.Tensor: lambda x, y: truth(tirx.EQ(x, y)),
    aten.ne.Tensor: different,
    aten.lt.Tensor: lambda x, y: truth(x < y),
    aten.le.Tensor: lambda x, y: truth(x <= y),
    aten.gt.Tensor: lambda x, y: truth(x > y),
    aten.ge.Tensor: lambda x, y: truth(x >= y),
    aten.logical_and.default: lambda x, y: tirx.And(cast(x, "bool"), cast(y, "bool")),
    aten.logical_or.default: lambda x, y: tirx.Or(cast(x, "bool"), cast(y, "bool")),
    aten.logical_xor.default: lambda x, y: tirx.NE(cast(cast(x, "bool"), "int8"), cast(cast(y, "bool"), "int8")),
}

for _overload, _function in _UNARY.items():
    LOWERINGS[_overload] = _unary(_function)
for _overload, _pair in _BINARY.items():
    LOWERINGS[_overload] = _binary(_pair)
LOWERINGS[aten.dropout.default] = lambda call: call.result(call["input"].read)
LOWERINGS[aten.logical_not.default] = _unary(_not)
LOWERINGS[aten.isnan.default] = _on_float_operand(_isnan)
LOWERINGS[aten.isinf.default] = _on_float_operand(_isinf)


@lowers(aten.add.Tensor, aten.sub.Tensor)
def add(call: Call) -> Array:
    """self + alpha * other, or the difference."""
    alpha = call["alpha"] if call.node.target is aten.add.Tensor else -call["alpha"]
    is_same = call.node.args[0] is call.node.args[1]  # TVM takes x - x for 0, though infinity less itself is NaN

    def combine(x: Expr, y: Expr) -> Expr:
        if alpha == -1 and is_same and is_float(x):
            return x * factor_of(0, dtype_of(x))
        if alpha in (1, -1):
            return x + y if alpha == 1 else x - y
        return x + y * factor_of(alpha, dtype_of(y))

    return _binary(combine)(call)


@lowers(aten.div.Tensor)
def divide(call: Call) -> Array:
    """True division; by a number it is a multiplication where that is exact."""
    other = call["other"]
    if isinstance(other, (int, float)) and other and math.frexp(other)[0] in (0.5, -0.5):
        return _binary(lambda x, _: x * scalar_of(1 / other, dtype_of(x)))(call)
    return _binary(lambda x, y: x / y)(call)


@lowers(aten.pow.Tensor_Tensor)
def power(call: Call) -> Array:
    """self to the power of other; squares, cubes, roots and their inverses without libm."""
    exponent = call["exponent"]
    known = exponent.constant if isinstance(exponent, Array) else exponent
    value = float(known.reshape(-1)[0]) if known is not None and getattr(known, "size", 1) == 1 else None
    one = scalar_of(1, call.dtype)
    short: dict[float | None, Callable[[Expr], Expr]] = {
        1.0: lambda x: x,
        2.0: lambda x: let(x, lambda v: v * v),
        3.0: lambda x: let(x, lambda v: v * v * v),
        0.5: tirx.sqrt,
        -0.5: lambda x: one / tirx.sqrt(x),
        -1.0: lambda x: one / x,
    }

    def read(index: Index) -> Expr:
        base = element(call["self"], index, call.dtype)
        if value in short and "float" in call.dtype:
            return short[value](base)
        if "float" in call.dtype:
            return tirx.pow(base, element(exponent, index, call.dtype))
        return cast(tirx.pow(cast(base, "float64"), element(exponent, index, "float64")), call.dtype)

    return call.result(read)


@lowers(aten.clamp.default)
def clamp(call: Call) -> Array:
    """Limit to a range whose ends may be open."""

    def limit(x: Expr) -> Expr:
        if call["min"] is not None:
            x = at_least(x, scalar_of(call["min"], dtype_of(x)))
        return x if call["max"] is None else at_most(x, scalar_of(call["max"], dtype_of(x)))

    return _unary(limit)(call)


@lowers(aten.round.default)
def round_half_even(call: Call) -> Array:
    """Round to the nearest integer, halves to the even one."""
    return _unary(lambda x: tirx.nearbyint(x) if "float" in dtype_of(x) else x)(call)


@lowers(aten.gelu.default)
def gelu(call: Call) -> Array:
    """x * Phi(x), exact or by the tanh formula, in which (1 + tanh(y)) / 2 is 1 / (1 + exp(-2 y))."""

    def exact(x: Expr) -> Expr:
        return let(x, lambda v: v * (_number(v, 0.5) + _number(v, 0.5) * vector.erf(v * _number(v, math.sqrt(0.5)))))

    def approximate(x: Expr) -> Expr:
        def formula(v: Expr) -> Expr:
            inner = (v + v * v * v * _number(v, 0.044715)) * _number(v, 2 * math.sqrt(2 / math.pi))
            return vector.gated(v, inner)

        return let(x, formula)

    return _unary(approximate if call["approximate"] == "tanh" else exact)(call)


@lowers(aten.softplus.default)
def softplus(call: Call) -> Array:
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold."""
    beta, threshold = call["beta"], call["threshold"]

    def formula(v: Expr) -> Expr:
        scaled = v * _number(v, beta)
        return tirx.Select(scaled > _number(v, threshold), v, vector.softplus(scaled) / _number(v, beta))

    return _unary(lambda x: let(x, formula))(call)


@lowers(aten.elu.default)
def elu(call: Call) -> Array:
    """scale * x above zero, scale * alpha * (exp(input_scale x) - 1) below."""
    alpha, scale, input_scale = call["alpha"], call["scale"], call["input_scale"]

    def formula(v: Expr) -> Expr:
        negative = (vector.exp(v * factor_of(input_scale, call.dtype)) - _number(v, 1)) * factor_of(
            alpha * scale, call.dtype
        )
        return tirx.Select(v > _zero(v), v * factor_of(scale, call.dtype), negative)

    return _unary(lambda x: let(x, formula))(call)


@lowers(aten.leaky_relu.default)
def leaky_relu(call: Call) -> Array:
    """x above zero, a fraction of it below."""
    slope = call["negative_slope"]
    return _unary(lambda x: let(x, lambda v: tirx.Select(v > _zero(v), v, v * factor_of(slope, call.dtype))))(call)


@lowers(aten.prelu.default)
def prelu(call: Call) -> Array:
    """Leaky ReLU with one slope for all or one for each channel (dimension 1)."""
    operand, weight = call["self"], call["weight"]

    def read(index: Index) -> Expr:
        slope = weight.read((index[1] if weight.shape[0] > 1 else 0,))
        return let(operand.read(index), lambda v: tirx.Select(v > _zero(v), v, v * slope))

    return call.result(read)


@lowers(aten.where.self)
def where(call: Call) -> Array:
    """Choose between two operands.

    Truth is chosen as bytes: TVM loads a vector of it as these, and comparisons are vectors of truth.
    """
    dtype = "int8" if call.dtype == "bool" else call.dtype

    def read(index: Index) -> Expr:
        condition = cast(broadcast(call["condition"], index), "bool")
        first, second = (cast(element(call[name], index, call.dtype), dtype) for name in ("self", "other"))
        return cast(let(first, lambda a: let(second, lambda b: tirx.Select(condition, a, b))), call.dtype)

    return call.result(read)


@lowers(aten.fake_quantize_per_tensor_affine.default, aten.fake_quantize_per_channel_affine.default)
def fake_quantize(call: Call) -> Array:
    """(clamp(round(x / scale) + zero_point) - zero_point) * scale, for the whole tensor or for each channel.

    NaN becomes the lowest, as in ATen, and plus infinity the highest.
    """
    operand, low, high = call["self"], call["quant_min"], call["quant_max"]
    axis = call.operands.get("axis")

    def part(name: str, index: Index) -> Expr:
        value = call[name]
        if not isinstance(value, Array):
            return scalar_of(value, call.dtype)
        return cast(value.read(() if axis is None else (index[axis],)), call.dtype)

    def read(index: Index) -> Expr:
        def rounded(scale: Expr) -> Expr:
            zero_point = part("zero_point", index)
            rounded = tirx.nearbyint(operand.read(index) * (scalar_of(1, call.dtype) / scale)) + zero_point
            limited = tirx.min(tirx.max(rounded, scalar_of(low, call.dtype)), scalar_of(high, call.dtype))
            return (limited - zero_point) * scale

        return let(part("scale", index), rounded)

    return call.result(read)
