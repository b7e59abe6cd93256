"""Functions of a layer's sums, computed in single precision before they are rounded, alike on every machine.

As in `integer` the PyTorch code is the exact meaning. Every product and every sum is rounded by itself,
as PyTorch does; kernels must not make a fused multiply-add of two of them. None is defined for NaN.

Source of the coefficients: Eigen's rational approximations of tanh and erf, Cephes' expf (S. Moshier).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lvc.compiler.ir.operators.integer import demand, single
from lvc.compiler.ir.operators.library import operator, operators_of


@operator("sigmoid(Tensor x) -> Tensor")
def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e^-x) in single precision, with the exponential of `_exp_negated`."""
    result: torch.Tensor = 1 / (1 + _exp_negated(x))
    return result


@operator("silu(Tensor x) -> Tensor")
def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + e^-x) in single precision, with the exponential of `_exp_negated`."""
    return x / (1 + _exp_negated(x))


@operator("hardsigmoid(Tensor x) -> Tensor")
def hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    """(x limited to [-3, 3], plus 3) times the single-precision number nearest to 1/6."""
    demand(x, torch.float32)
    return (x.clamp(-3, 3) + 3) * single(1 / 6)


@operator("hardswish(Tensor x) -> Tensor")
def hardswish(x: torch.Tensor) -> torch.Tensor:
    """x times its hardsigmoid."""
    product: torch.Tensor = x * hardsigmoid(x)
    return product


POWER_LIMIT = 110.0
POWER_SERIES = (0.05517149, 0.24261093, 0.69326097, 0.99992806)
"""2^r for r from -1/2 to 1/2, within 7.5e-5 of it: the polynomial of degree 3 with the least relative error."""


def _exp_negated(x: torch.Tensor) -> torch.Tensor:
    """e^-x, within 8e-5 of it for x from -76 to 76 and beyond as there: 2^-x log2(e), integral power and rest."""
    demand(x, torch.float32)
    power = (x * single(-EXP_BASE)).clamp(-POWER_LIMIT, POWER_LIMIT)
    integral = power.round()
    series = _polynomial(power - integral, POWER_SERIES)
    return series * ((integral.to(torch.int32) + 127) << 23).view(torch.float32)


TANH_LIMIT = 7.90531110763549805
TANH_ODD = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
TANH_EVEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
ERF_LIMIT = 4.0
ERF_ODD = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_EVEN = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


@operator("tanh(Tensor x) -> Tensor")
def tanh(x: torch.Tensor) -> torch.Tensor:
    """The hyperbolic tangent, within 5e-7."""
    return _rational(x, TANH_ODD, TANH_EVEN, TANH_LIMIT)


GELU_CUBIC, GELU_SCALE, GELU_WIDTH = 0.044715, math.sqrt(2 / math.pi), math.sqrt(0.5)


@operator("gelu(Tensor x, str approximate) -> Tensor")
def gelu(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """x times a half plus half the erf of x/sqrt(2), or by tanh as ATen has it, within 1e-6 for x from -30 to 30."""
    if approximate == "tanh":
        cube = x * x * x
        inner = (x + cube * single(GELU_CUBIC)) * single(GELU_SCALE)
        return (x * 0.5) * (1 + _rational(inner, TANH_ODD, TANH_EVEN, TANH_LIMIT))
    return x * (0.5 + 0.5 * _rational(x * single(GELU_WIDTH), ERF_ODD, ERF_EVEN, ERF_LIMIT))


EXP_LEAST, EXP_MOST = -87.0, 87.0
EXP_BASE, EXP_HIGH, EXP_LOW = math.log2(math.e), 0.693359375, -2.12194440e-4
"""log2(e), and ln(2) as the sum of a short number and the rest."""
EXP_SERIES = (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665795e-2, 1.6666665e-1, 5.0000001e-1)


@operator("elu(Tensor x, float alpha, float scale, float input_scale) -> Tensor")
def elu(x: torch.Tensor, alpha: float, scale: float, input_scale: float) -> torch.Tensor:
    """scale * x above zero, scale * alpha * (e^(input_scale * x) - 1) below."""
    below = (_exp(x.clamp(max=0) * single(input_scale)) - 1) * single(alpha * scale)
    return torch.where(x > 0, x * single(scale), below)


MISH_MOST = 20.0


@operator("mish(Tensor x) -> Tensor")
def mish(x: torch.Tensor) -> torch.Tensor:
    """x * tanh(log(1 + e^x)), which is x * u / (u + 2) with u = e^x * (e^x + 2)."""
    power = _exp(x.clamp(max=MISH_MOST))
    u = power * (power + 2)
    return x * (u / (u + 2))


OPERATORS = operators_of(__name__)


def _exp(x: torch.Tensor) -> torch.Tensor:
    """e^x, within 3e-7 of it, for x limited to [-87, 87]."""
    demand(x, torch.float32)
    limited = x.clamp(EXP_LEAST, EXP_MOST)
    integral = (limited * single(EXP_BASE)).round()
    rest = (limited - integral * EXP_HIGH) - integral * single(EXP_LOW)
    series = _polynomial(rest, EXP_SERIES) * rest * rest + rest + 1
    return series * ((integral.to(torch.int32) + 127) << 23).view(torch.float32)


def _rational(x: torch.Tensor, odd: Sequence[float], even: Sequence[float], limit: float) -> torch.Tensor:
    """x * odd(x*x) / even(x*x), for x limited to a range beyond which the function is constant."""
    demand(x, torch.float32)
    limited = x.clamp(-limit, limit)
    square = limited * limited
    return limited * _polynomial(square, odd) / _polynomial(square, even)


def _polynomial(x: torch.Tensor, coefficients: Sequence[float]) -> torch.Tensor:
    """The value of a polynomial, highest power first."""
    total = torch.full_like(x, single(coefficients[0]))
    for coefficient in coefficients[1:]:
        total = total * x + single(coefficient)
    return total
