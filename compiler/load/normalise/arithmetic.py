"""Arithmetic, comparison, logic and casts: the `Tensor` overload, with a tensor or (add, sub, mul, div) a number."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import expand

aten = torch.ops.aten
Term = Operand | float


def _plain(x: Term, beside: Operand) -> Term:
    """A constant of rank 0 as the number it is, where that changes no result type."""
    if not isinstance(x, Operand) or not x.is_constant or x.rank or beside.is_constant:
        return x
    if x.dtype is not torch.float32 or not beside.dtype.is_floating_point:
        return x
    assert x.value is not None
    return float(x.value)


def promoted(x: Term, y: Term) -> torch.dtype:
    """The type in which PyTorch computes with two terms."""
    left, right = (
        torch.empty((1,) * term.rank, dtype=term.dtype, device="meta") if isinstance(term, Operand) else term
        for term in (x, y)
    )
    return torch.result_type(left, right)


def float_type(x: Operand) -> torch.dtype:
    """The type in which PyTorch computes functions that have no whole results."""
    return x.dtype if x.dtype.is_floating_point else torch.float32


def add(b: Builder, x: Operand, y: Term, *, alpha: float = 1) -> Operand:
    return b.call(aten.add.Tensor, x, _plain(_scaled(b, y, alpha, beside=x), x))


def sub(b: Builder, x: Operand, y: Term, *, alpha: float = 1) -> Operand:
    return b.call(aten.sub.Tensor, x, _plain(_scaled(b, y, alpha, beside=x), x))


def mul(b: Builder, x: Operand, y: Term) -> Operand:
    return b.call(aten.mul.Tensor, x, _plain(y, x))


def div(b: Builder, x: Operand, y: Term, *, rounding_mode: str | None = None) -> Operand:
    if rounding_mode is not None and not x.dtype.is_floating_point:
        raise Unsupported("it divides integers")
    quotient = b.call(aten.div.Tensor, x, _plain(y, x))
    if rounding_mode == "floor":
        return b.call(aten.floor.default, quotient)
    if rounding_mode == "trunc":
        return mul(b, b.call(aten.sign.default, quotient), unary(b, aten.floor, unary(b, aten.abs, quotient)))
    return quotient


def unary(b: Builder, packet: Any, x: Operand) -> Operand:
    return b.call(packet.default, x)


def _scaled(b: Builder, y: Term, alpha: float, *, beside: Term) -> Term:
    """``y * alpha``, computed in the type of the sum that it goes into."""
    if alpha == 1:
        return y
    return mul(b, cast(b, y, promoted(beside, y)), alpha) if isinstance(y, Operand) else y * alpha


def _rsub(b: Builder, x: Operand, y: Term, alpha: float = 1) -> Operand:
    x = cast(b, x, promoted(x, y))
    x = x if alpha == 1 else mul(b, x, alpha)
    if isinstance(y, Operand):
        return sub(b, y, x)
    return add(b, b.call(aten.neg.default, x), y)


def power(b: Builder, x: Operand, exponent: Term) -> Operand:
    """``x ** exponent``: small whole and half exponents become products and roots."""
    exponent = _plain(exponent, x)
    if isinstance(exponent, Operand):
        return b.call(aten.pow.Tensor_Tensor, x, exponent)
    x = cast(b, x, promoted(x, exponent))
    if exponent == 1:
        return x
    if exponent in (2, 3):
        squared = mul(b, x, x)
        return squared if exponent == 2 else mul(b, squared, x)
    roots = {0.5: aten.sqrt, -0.5: aten.rsqrt, -1: aten.reciprocal}
    if exponent in roots and x.dtype.is_floating_point:
        return unary(b, roots[exponent], x)
    return b.call(aten.pow.Tensor_Tensor, x, b.number(exponent, x.dtype))


def _power_of_number(b: Builder, base: float, x: Operand) -> Operand:
    x = cast(b, x, promoted(base, x))
    if base <= 0 or not x.dtype.is_floating_point:
        return b.call(aten.pow.Tensor_Tensor, b.number(base, x.dtype), x)
    return b.call(aten.exp.default, mul(b, x, math.log(base)))


def binary(overload: OpOverload) -> Rule:
    """The rule of an operator that takes tensors only: a number becomes a constant of rank 0."""

    def rule(b: Builder, x: Operand, y: Term) -> Operand:
        return b.call(overload, x, y if isinstance(y, Operand) else b.number(y, x.dtype))

    return rule


def clamp(b: Builder, x: Operand, min: float | None = None, max: float | None = None) -> Operand:
    if min is None and max is None:
        return x
    return b.call(aten.clamp.default, x, min, max)


def _clamp_by_tensors(b: Builder, x: Operand, min: Operand | None = None, max: Operand | None = None) -> Operand:
    x = x if min is None else b.call(aten.maximum.default, x, min)
    return x if max is None else b.call(aten.minimum.default, x, max)


def where(b: Builder, condition: Operand, x: Term, y: Term) -> Operand:
    dtype = promoted(x, y)
    x, y = (term if isinstance(term, Operand) else b.scalar(term, dtype) for term in (x, y))
    return b.call(aten.where.self, condition, x, y)


def masked_fill(b: Builder, x: Operand, mask: Operand, value: Term) -> Operand:
    value = cast(b, value, x.dtype) if isinstance(value, Operand) else b.scalar(value, x.dtype)
    return where(b, mask, value, x)


def cast(b: Builder, x: Operand, dtype: torch.dtype | None, *_: Any, **__: Any) -> Operand:
    return x if dtype in (None, x.dtype) else b.call(aten.to.dtype, x, dtype)


def _cast_by_keyword(b: Builder, x: Operand, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Operand:
    return cast(b, x, dtype)


def _cast_like(b: Builder, x: Operand, other: Operand, *_: Any, **__: Any) -> Operand:
    return cast(b, x, other.dtype)


def _cast_with_device(b: Builder, x: Operand, device: object, dtype: torch.dtype, *_: Any, **__: Any) -> Operand:
    return cast(b, x, dtype)


def _copy(b: Builder, x: Operand, source: Term, *_: Any, **__: Any) -> Operand:
    """What ``x`` is after a value was written over all of it."""
    if not isinstance(source, Operand):
        return b.constant(torch.full(x.shape, source, dtype=x.dtype))
    return expand(b, cast(b, source, x.dtype), x.shape)


def _zero(b: Builder, x: Operand) -> Operand:
    return _copy(b, x, 0)


def _addc(outer: Rule) -> Rule:
    def rule(b: Builder, x: Operand, left: Operand, right: Operand, *, value: float = 1) -> Operand:
        product = outer(b, left, right)
        assert isinstance(product, Operand)
        return add(b, x, product, alpha=value)

    return rule


def _lerp(b: Builder, x: Operand, end: Operand, weight: Term) -> Operand:
    return add(b, x, mul(b, sub(b, end, x), weight))


def _logical(logical: OpOverload) -> Rule:
    def rule(b: Builder, x: Operand, y: Operand) -> Operand:
        if not x.dtype is y.dtype is torch.bool:
            raise Unsupported("it works on the bits of integers")
        return b.call(logical, x, y)

    return rule


def _not(b: Builder, x: Operand) -> Operand:
    if x.dtype is not torch.bool:
        raise Unsupported("it works on the bits of integers")
    return b.call(aten.logical_not.default, x)


def _floor_divide(b: Builder, x: Operand, y: Term) -> Operand:
    return div(b, x, y, rounding_mode="floor")


_COMPARISONS = {
    overload: binary(getattr(aten, name).Tensor)
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod")
    for overload in (getattr(aten, name).Tensor, getattr(aten, name).Scalar)
}

ARITHMETIC: dict[OpOverload, Rule] = {
    **_COMPARISONS,
    aten.add.Tensor: add,
    aten.add.Scalar: lambda b, x, y, alpha=1: add(b, x, y, alpha=alpha),
    aten.sub.Tensor: sub,
    aten.sub.Scalar: lambda b, x, y, alpha=1: sub(b, x, y, alpha=alpha),
    aten.subtract.Tensor: sub,
    aten.rsub.Tensor: _rsub,
    aten.rsub.Scalar: _rsub,
    aten.mul.Tensor: mul,
    aten.mul.Scalar: mul,
    aten.multiply.Tensor: mul,
    aten.div.Tensor: div,
    aten.div.Scalar: div,
    aten.div.Tensor_mode: div,
    aten.div.Scalar_mode: div,
    aten.divide.Tensor: div,
    aten.true_divide.Tensor: div,
    aten.floor_divide.default: _floor_divide,
    aten.floor_divide.Scalar: _floor_divide,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: _power_of_number,
    aten.square.default: lambda b, x: mul(b, x, x),
    aten.clamp.default: clamp,
    aten.clamp.Tensor: _clamp_by_tensors,
    aten.clip.default: clamp,
    aten.clamp_min.default: clamp,
    aten.clamp_max.default: lambda b, x, max: clamp(b, x, None, max),
    aten.max.other: binary(aten.maximum.default),
    aten.min.other: binary(aten.minimum.default),
    aten.where.self: where,
    aten.where.Scalar: where,
    aten.where.ScalarOther: where,
    aten.where.ScalarSelf: where,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten.to.dtype: cast,
    aten.to.device: _cast_with_device,
    aten.to.dtype_layout: _cast_by_keyword,
    aten.to.other: _cast_like,
    aten.type_as.default: _cast_like,
    aten._to_copy.default: _cast_by_keyword,
    aten.copy.default: _copy,
    aten.fill.Scalar: _copy,
    aten.fill.Tensor: _copy,
    aten.zero.default: _zero,
    aten.addcmul.default: _addc(mul),
    aten.addcdiv.default: _addc(div),
    aten.lerp.Scalar: _lerp,
    aten.lerp.Tensor: _lerp,
    aten.bitwise_and.Tensor: _logical(aten.logical_and.default),
    aten.bitwise_or.Tensor: _logical(aten.logical_or.default),
    aten.bitwise_xor.Tensor: _logical(aten.logical_xor.default),
    aten.__and__.Tensor: _logical(aten.logical_and.default),
    aten.__or__.Tensor: _logical(aten.logical_or.default),
    aten.bitwise_not.default: _not,
}
