"""Transcendental functions that compile to vector code.

LLVM calls libm once per lane for these, so they are written as polynomials here. Measured against float64 over all
magnitudes where the true result is a normal number (`tests/backends/tvm/test_math.py`): `exp` and `log` within 2 ulp,
`tanh` and `erf` within 4e-7 absolute and 6 ulp, `sigmoid` within 4 ulp.
Coefficients: Cephes (expf, logf; S. Moshier) and Eigen's rational approximations of tanh and erf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from lvc.backends.tvm.extremes import at_least, at_most
from lvc.backends.tvm.scope import Expr, dtype_of, let
from lvc.compiler.ir.operators.functions import ERF_EVEN, ERF_LIMIT, ERF_ODD, TANH_EVEN, TANH_LIMIT, TANH_ODD


def f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Evaluate a polynomial, highest power first."""
    first, *rest = coefficients
    total = f32(first)
    for coefficient in rest:
        total = total * x + f32(coefficient)
    return total


def _or_libm(libm: Callable[[Expr], Expr]) -> Callable[[Callable[[Expr], Expr]], Callable[[Expr], Expr]]:
    """Use the polynomial for float32 and libm for any other type."""

    def wrap(polynomial: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
        def choose(x: Expr) -> Expr:
            return polynomial(x) if dtype_of(x) == "float32" else libm(x)

        choose.__doc__ = polynomial.__doc__
        return choose

    return wrap


_SMALLEST, _LARGEST = -87.33654, 88.72283  # where e to the x is the smallest and the largest normal number


@_or_libm(tirx.exp)
def exp(x: Expr) -> Expr:
    """e to the x: 0 below -87.3 (no denormals), infinity above 88.72."""

    def limited(v: Expr) -> Expr:
        inner = _exp(at_most(at_least(v, f32(_SMALLEST)), f32(_LARGEST)), _scaled_twice)
        return tirx.Select(v < f32(_SMALLEST), f32(0), tirx.Select(v > f32(_LARGEST), tirx.infinity("float32"), inner))

    return let(x, limited)


@_or_libm(tirx.exp)
def exp_of_negative(x: Expr) -> Expr:
    """e to the x, for x of 0 or less: 0 below -87.3."""
    return let(x, lambda v: tirx.Select(v < f32(_SMALLEST), f32(0), _exp(at_least(v, f32(_SMALLEST)), _scaled)))


def _exp(x: Expr, scaled: Callable[[Expr, Expr], Expr]) -> Expr:
    """2 to the n times e to the r, where x = n * log(2) + r and n is the nearest integer."""

    def series(n: Expr, r: Expr) -> Expr:
        p = horner(r, (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665795e-2, 1.6666665e-1, 5.0000001e-1))
        return scaled(p * r * r + r + f32(1), tirx.Cast("int32", n))

    def reduced(v: Expr) -> Expr:
        return let(
            tirx.floor(v * f32(1.44269504) + f32(0.5)),
            lambda n: let((v - n * f32(0.693359375)) - n * f32(-2.12194440e-4), lambda r: series(n, r)),
        )

    return let(x, reduced)


def _scaled(value: Expr, n: Expr) -> Expr:
    """A value times 2 to the n, for n from -126 to 127; infinity for 128."""
    return value * tirx.reinterpret("float32", (n + tirx.const(127, "int32")) << tirx.const(23, "int32"))


def _scaled_twice(value: Expr, n: Expr) -> Expr:
    """A value times 2 to the n, for n from -126 to 128: 2 to the 128 is no float32."""
    half = n >> tirx.const(1, "int32")
    return _scaled(_scaled(value, half), n - half)


@_or_libm(tirx.log)
def log(x: Expr) -> Expr:
    """Natural logarithm: minus infinity at 0, NaN below; denormals count as the smallest normal number."""
    coefficients = (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )

    def series(e: Expr, m: Expr) -> Expr:
        z = m * m
        y = horner(m, coefficients) * m * z + e * f32(-2.12194440e-4) - f32(0.5) * z
        return m + y + e * f32(0.693359375)

    def split(bits: Expr) -> Expr:
        exponent = (bits >> tirx.const(23, "int32")) - tirx.const(126, "int32")
        mantissa = tirx.reinterpret(
            "float32", (bits & tirx.const(0x007FFFFF, "int32")) | tirx.const(0x3F000000, "int32")
        )

        def centred(m: Expr) -> Expr:
            small = m < f32(0.70710678)
            e = tirx.Cast("float32", exponent) - tirx.Select(small, f32(1), f32(0))
            return let(e, lambda e: let(tirx.Select(small, m + m, m) - f32(1), lambda r: series(e, r)))

        return let(mantissa, centred)

    def limited(v: Expr) -> Expr:
        normal = let(tirx.reinterpret("int32", tirx.max(v, f32(1.17549435e-38))), split)
        infinite = tirx.infinity("float32")
        value = tirx.Select(v == infinite, infinite, tirx.Select(v == f32(0), -infinite, normal))
        return tirx.Select(v >= f32(0), value, tirx.reinterpret("float32", tirx.const(0x7FC00000, "int32")))

    return let(x, limited)


@_or_libm(tirx.tanh)
def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent."""
    return _rational(x, TANH_ODD, TANH_EVEN, TANH_LIMIT)


@_or_libm(tirx.erf)
def erf(x: Expr) -> Expr:
    """The error function."""
    return _rational(x, ERF_ODD, ERF_EVEN, ERF_LIMIT)


def _rational(x: Expr, odd: Sequence[float], even: Sequence[float], limit: float) -> Expr:
    """x * odd(x*x) / even(x*x), for x limited to a range beyond which the function is constant."""

    def ratio(v: Expr) -> Expr:
        return let(v * v, lambda square: v * horner(square, odd) / horner(square, even))

    return let(at_least(at_most(x, f32(limit)), f32(-limit)), ratio)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)); 0 below -88.4."""
    return let(x, lambda v: tirx.const(1, dtype_of(v)) / _one_and_exp_of_opposite(v))


def silu(x: Expr) -> Expr:
    """x / (1 + exp(-x)); 0 below -88.4."""
    return let(x, lambda v: gated(v, v))


def gated(x: Expr, gate: Expr) -> Expr:
    """x / (1 + exp(-gate)), which is x times the sigmoid of a gate; 0 for gates below -88.4, and for minus infinity
    NaN where x is infinite."""
    return x / _one_and_exp_of_opposite(gate)


def _one_and_exp_of_opposite(x: Expr) -> Expr:
    one: Any = tirx.const(1, dtype_of(x))
    if dtype_of(x) != "float32":
        return one + tirx.exp(-x)
    # below these limits the sum is 1; at the upper one the power is 2 to the 128, which `_scaled` makes infinity
    return one + _exp(at_most(at_least(-x, f32(_SMALLEST)), f32(_LARGEST)), _scaled)


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow."""
    one, zero = tirx.const(1, dtype_of(x)), tirx.const(0, dtype_of(x))
    return let(x, lambda v: at_least(v, zero) + log(one + exp(-tirx.abs(v))))
