"""Functions of real numbers, each as `lvc.compiler.ir.operators.functions` defines it, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx

from lvc.backends.tvm.ops.integer import ROUNDER, ROUNDER_BITS
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, let, scalar_of
from lvc.compiler.ir.operators import functions


def _f32(value: float) -> Expr:
    return scalar_of(float(np.float32(value)), "float32")


def _rounded(x: Expr) -> Expr:
    """A value that LLVM may not make part of a fused multiply-add."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", x)


def _times(x: Expr, y: Expr) -> Expr:
    """A product that is rounded before anything is added."""
    return _rounded(x * y)


def _limited(x: Expr, low: float, high: float) -> Expr:
    return tirx.min(tirx.max(x, _f32(low)), _f32(high))


def _exp_negated(x: Expr) -> Expr:
    """e^-x as `lvc.compiler.ir.operators.functions` has it."""
    rounder = _f32(ROUNDER)

    def raised(power: Expr, shifted: Expr) -> Expr:
        """``shifted`` has the whole part of the power in its lowest bits, which are added to the exponent."""
        series = let(power - (shifted - rounder), lambda rest: _polynomial(rest, functions.POWER_SERIES))
        exponent = tirx.reinterpret("int32", shifted) << tirx.const(23, "int32")
        return tirx.reinterpret("float32", tirx.reinterpret("int32", series) + exponent)

    power = _limited(x * _f32(-functions.EXP_BASE), -functions.POWER_LIMIT, functions.POWER_LIMIT)
    return let(power, lambda p: let(p + rounder, lambda shifted: raised(p, shifted)))


def _sigmoid(x: Expr) -> Expr:
    one = scalar_of(1, "float32")
    return one / (one + _exp_negated(x))


def _silu(x: Expr) -> Expr:
    return let(x, lambda v: v / (scalar_of(1, "float32") + _exp_negated(v)))


def _hardsigmoid(x: Expr) -> Expr:
    three = scalar_of(3, "float32")
    limited = tirx.max(tirx.min(x, three), -three)
    return (limited + three) * scalar_of(float(np.float32(1 / 6)), "float32")


def _hardswish(x: Expr) -> Expr:
    return let(x, lambda v: v * _hardsigmoid(v))


def _tanh(x: Expr) -> Expr:
    return _rational(x, functions.TANH_ODD, functions.TANH_EVEN, functions.TANH_LIMIT)


def _gelu(x: Expr) -> Expr:
    def formula(v: Expr) -> Expr:
        erf = _rational(v * _f32(functions.GELU_WIDTH), functions.ERF_ODD, functions.ERF_EVEN, functions.ERF_LIMIT)
        return v * (_f32(0.5) + _times(erf, _f32(0.5)))

    return let(x, formula)


def _gelu_by_tanh(x: Expr) -> Expr:
    def formula(v: Expr) -> Expr:
        inner = (v + _times(v * v * v, _f32(functions.GELU_CUBIC))) * _f32(functions.GELU_SCALE)
        return v * _f32(0.5) * (_f32(1) + _tanh(inner))

    return let(_rounded(x), formula)


def _elu(x: Expr, alpha: float, scale: float, input_scale: float) -> Expr:
    def formula(v: Expr) -> Expr:
        power = _exp(tirx.min(v, _f32(0)) * _f32(input_scale))
        return tirx.Select(v > _f32(0), v * _f32(scale), (power - _f32(1)) * _f32(alpha * scale))

    return let(x, formula)


def _mish(x: Expr) -> Expr:
    def formula(v: Expr) -> Expr:
        power = _exp(tirx.min(v, _f32(functions.MISH_MOST)))
        return let(power, lambda e: let(_times(e, e + _f32(2)), lambda u: v * (u / (u + _f32(2)))))

    return let(x, formula)


def _exp(x: Expr) -> Expr:
    def series(v: Expr, whole: Expr) -> Expr:
        n = tirx.Cast("float32", whole)
        rest = (v - _times(n, _f32(functions.EXP_HIGH))) - _times(n, _f32(functions.EXP_LOW))
        power = tirx.reinterpret("float32", (whole + tirx.const(127, "int32")) << tirx.const(23, "int32"))
        return let(rest, lambda r: (_times(_polynomial(r, functions.EXP_SERIES) * r, r) + r + _f32(1)) * power)

    def split(v: Expr) -> Expr:
        bits = tirx.reinterpret("int32", _times(v, _f32(functions.EXP_BASE)) + _f32(ROUNDER))
        return let(bits - tirx.const(ROUNDER_BITS, "int32"), lambda whole: series(v, whole))

    return let(_limited(x, functions.EXP_LEAST, functions.EXP_MOST), split)


def _rational(x: Expr, odd: Sequence[float], even: Sequence[float], limit: float) -> Expr:
    """x * odd(x*x) / even(x*x), for x limited."""

    def ratio(v: Expr) -> Expr:
        return let(v * v, lambda square: v * _polynomial(square, odd) / _polynomial(square, even))

    return let(_limited(x, -limit, limit), ratio)


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """The value of a polynomial, highest power first."""
    first, *rest = map(_f32, coefficients)
    for coefficient in rest:
        first = _times(first, x) + coefficient
    return first


_PLAIN = {
    functions.sigmoid: _sigmoid,
    functions.silu: _silu,
    functions.hardsigmoid: _hardsigmoid,
    functions.hardswish: _hardswish,
    functions.tanh: _tanh,
    functions.mish: _mish,
}


def _function_of(call: Call) -> Callable[[Expr], Expr]:
    if call.node.target is functions.gelu:
        return _gelu_by_tanh if call["approximate"] == "tanh" else _gelu
    if call.node.target is functions.elu:
        return lambda x: _elu(x, call["alpha"], call["scale"], call["input_scale"])
    return _PLAIN[call.node.target]  # type: ignore[index]


@lowers(*_PLAIN, functions.gelu, functions.elu)
def function(call: Call) -> Array:
    """A function of real numbers, computed alike everywhere."""
    compute = _function_of(call)

    def read(index: Index) -> Expr:
        return compute(call["x"].read(index))

    return call.result(read)
