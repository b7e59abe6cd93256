"""Activations: bounded ones are a `clamp`; rare ones are written out."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.arithmetic import add, cast, clamp, div, float_type, mul, sub, unary, where
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import reshape, split

aten = torch.ops.aten

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _hardtanh(b: Builder, x: Operand, min_val: float = -1, max_val: float = 1) -> Operand:
    return clamp(b, x, min_val, max_val)


def _relu6(b: Builder, x: Operand) -> Operand:
    return clamp(b, x, 0, 6)


def _selu(b: Builder, x: Operand) -> Operand:
    return mul(b, b.call(aten.elu.default, x, _SELU_ALPHA), _SELU_SCALE)


def _celu(b: Builder, x: Operand, alpha: float = 1.0) -> Operand:
    return mul(b, unary(b, aten.elu, div(b, x, alpha)), alpha)


def _glu(b: Builder, x: Operand, dim: int = -1) -> Operand:
    left, right = split(b, x, [x.shape[dim] // 2] * 2, dim)
    return mul(b, left, unary(b, aten.sigmoid, right))


def _log_sigmoid(b: Builder, x: Operand) -> Operand:
    return unary(b, aten.neg, b.call(aten.softplus.default, unary(b, aten.neg, x)))


def _threshold(b: Builder, x: Operand, threshold: float, value: float) -> Operand:
    return where(b, b.call(aten.gt.Tensor, x, b.number(threshold, x.dtype)), x, value)


def _leaky_between(
    b: Builder, x: Operand, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: object = None
) -> Operand:
    if training:
        raise Unsupported("it draws random numbers, though the model is in evaluation mode")
    return b.call(aten.leaky_relu.default, x, (lower + upper) / 2)


def _dropout(b: Builder, x: Operand, p: float = 0.5, train: bool = True) -> Operand:
    if train and p:
        raise Unsupported("it draws random numbers, though the model is in evaluation mode")
    return b.call(aten.dropout.default, x, p, False)


def _native_dropout(b: Builder, x: Operand, p: float, train: bool | None) -> tuple[Operand, ...]:
    return (_dropout(b, x, p, train is not False), b.constant(torch.ones(x.shape, dtype=torch.bool)))


def _log1p(b: Builder, x: Operand) -> Operand:
    """``log(1 + x)``, corrected by the part of ``x`` that is lost beside 1 (W. Kahan)."""
    x = cast(b, x, float_type(x))
    beside = add(b, x, 1)
    left = sub(b, beside, 1)
    logarithm = unary(b, aten.log, beside)
    scaled = mul(b, logarithm, div(b, x, left))
    near = where(b, b.call(aten.eq.Tensor, left, b.number(0, left.dtype)), x, scaled)
    return where(b, b.call(aten.eq.Tensor, left, x), logarithm, near)


def _expm1(b: Builder, x: Operand) -> Operand:
    """``exp(x) - 1`` as ``tanh(x / 2) (exp(x) + 1)``, which keeps the digits of a small ``x``."""
    return mul(b, unary(b, aten.tanh, mul(b, x, 0.5)), add(b, unary(b, aten.exp, x), 1))


def _softplus(b: Builder, x: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    return b.call(aten.softplus.default, x, beta, threshold)


ACTIVATION: dict[OpOverload, Rule] = {
    aten.relu6.default: _relu6,
    aten.hardtanh.default: _hardtanh,
    aten.selu.default: _selu,
    aten.celu.default: _celu,
    aten.glu.default: _glu,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.softplus.default: _softplus,
    aten.threshold.default: _threshold,
    aten._prelu_kernel.default: lambda b, x, weight: b.call(aten.prelu.default, x, reshape(b, weight, (-1,))),
    aten.rrelu.default: _leaky_between,
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.alpha_dropout.default: _dropout,
    aten.native_dropout.default: _native_dropout,
    aten.log1p.default: _log1p,
    aten.log2.default: lambda b, x: mul(b, unary(b, aten.log, x), 1.4426950408889634),
    aten.log10.default: lambda b, x: mul(b, unary(b, aten.log, x), 0.4342944819032518),
    aten.exp2.default: lambda b, x: unary(b, aten.exp, mul(b, x, 0.6931471805599453)),
    aten.expm1.default: _expm1,
    aten.trunc.default: lambda b, x: mul(b, unary(b, aten.sign, x), unary(b, aten.floor, unary(b, aten.abs, x))),
}
