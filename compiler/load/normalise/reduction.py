"""Reductions over named dimensions, each written with all of them and ``keepdim``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.arithmetic import add, cast, mul, sub, unary, where
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import axis, reshape

aten = torch.ops.aten
Dims = int | Sequence[int] | None


def dims_of(x: Operand, dim: Dims) -> list[int]:
    """The dimensions that an argument names: all for none or an empty list."""
    if isinstance(dim, int):
        return [axis(x, dim)] if x.rank else []
    return [d % x.rank for d in dim] if dim and x.rank else list(range(x.rank))


def mean(
    b: Builder, x: Operand, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Operand:
    return b.call(aten.mean.dim, cast(b, x, dtype), dims_of(x, dim), keepdim)


def total(
    b: Builder, x: Operand, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Operand:
    return b.call(aten.sum.dim_IntList, cast(b, x, dtype), dims_of(x, dim), keepdim)


def _extreme(overload: OpOverload) -> Rule:
    return lambda b, x, dim=(), keepdim=False: b.call(overload, x, dims_of(x, dim), keepdim)


def _truth(overload: OpOverload) -> Rule:
    """Of booleans, the largest is whether any is true, the smallest whether all are."""

    def rule(b: Builder, x: Operand, dim: Dims = None, keepdim: bool = False) -> Operand:
        if x.dtype is torch.uint8:
            return cast(b, rule(b, cast(b, x, torch.bool), dim, keepdim), torch.uint8)
        dims = [] if isinstance(dim, list) and not dim else dims_of(x, dim)
        known = cast(b, x, torch.bool)
        return b.call(overload, known, dims, keepdim) if dims else known

    return rule


def _extreme_with_place(extreme: OpOverload, place: OpOverload) -> Rule:
    def rule(b: Builder, x: Operand, dim: int, keepdim: bool = False) -> tuple[Operand, ...]:
        ranked = cast(b, x, torch.uint8) if x.dtype is torch.bool else x
        return b.call(extreme, x, dims_of(x, dim), keepdim), b.call(place, ranked, axis(x, dim), keepdim)

    return rule


def variance(
    b: Builder,
    x: Operand,
    dim: Dims = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Operand:
    """Mean of the squared distance from the mean, over the count less ``correction`` (by default 1)."""
    correction = int(unbiased) if correction is None else correction
    dims = dims_of(x, dim)
    distance = sub(b, x, mean(b, x, dims, True))
    spread = mean(b, mul(b, distance, distance), dims, keepdim)
    count = 1
    for d in dims:
        count *= x.shape[d]
    if count <= correction:
        raise Unsupported("it is the variance of a single element")
    return spread if correction == 0 else mul(b, spread, count / (count - correction))


def _variance(
    b: Builder, x: Operand, dim: Dims = None, *, correction: float | None = 1, keepdim: bool = False
) -> Operand:
    return variance(b, x, dim, keepdim=keepdim, correction=1 if correction is None else correction)


def _root(rule: Rule) -> Rule:
    def apply(b: Builder, *args: object, **kwargs: object) -> Operand:
        spread = rule(b, *args, **kwargs)
        assert isinstance(spread, Operand)
        return unary(b, aten.sqrt, spread)

    return apply


def _variance_and_mean(
    b: Builder, x: Operand, dim: Dims = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[Operand, ...]:
    return _variance(b, x, dim, correction=correction, keepdim=keepdim), mean(b, x, dim, keepdim)


def _finite(b: Builder, x: Operand) -> Operand:
    """Zero in the place of infinities."""
    return where(b, b.call(aten.isinf.default, x), 0.0, x)


def _log_sum_exp(b: Builder, x: Operand, dim: Dims, keepdim: bool = False) -> Operand:
    dims = dims_of(x, dim)
    peak = _finite(b, b.call(aten.amax.default, x, dims, True))
    logarithm = unary(b, aten.log, total(b, unary(b, aten.exp, sub(b, x, peak)), dims, True))
    result = add(b, logarithm, peak)
    return result if keepdim else reshape(b, result, [s for d, s in enumerate(x.shape) if d not in dims])


def norm(
    b: Builder,
    x: Operand,
    ord: float | None = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Operand:
    order = 2 if ord is None else ord
    return b.call(aten.linalg_vector_norm.default, cast(b, x, dtype), order, dims_of(x, dim), keepdim)


def _norm_of_vectors(
    b: Builder, x: Operand, ord: float | None = None, dim: Dims = None, keepdim: bool = False, **options: Any
) -> Operand:
    if ord is not None and (x.rank == 2 if dim is None else not isinstance(dim, int) and len(dim) == 2):
        raise Unsupported("it is the norm of a matrix")
    return norm(b, x, ord, dim, keepdim, **options)


def _cumulative_sum(b: Builder, x: Operand, dim: int, *, dtype: torch.dtype | None = None) -> Operand:
    return b.call(aten.cumsum.default, cast(b, x, dtype), axis(x, dim))


def _product(b: Builder, x: Operand, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Operand:
    return b.call(aten.prod.dim_int, cast(b, x, dtype), axis(x, dim), keepdim)


def _softmax(overload: OpOverload) -> Rule:
    def rule(b: Builder, x: Operand, dim: int, dtype: torch.dtype | bool | None = None) -> Operand:
        wanted = dtype if isinstance(dtype, torch.dtype) else None
        return b.call(overload, cast(b, x, wanted), axis(x, dim))

    return rule


def _argument(overload: OpOverload) -> Rule:
    def rule(b: Builder, x: Operand, dim: int | None = None, keepdim: bool = False) -> Operand:
        return b.call(overload, x, None if dim is None else axis(x, dim), keepdim)

    return rule


REDUCTION: dict[OpOverload, Rule] = {
    aten.mean.default: mean,
    aten.mean.dim: mean,
    aten.sum.default: total,
    aten.sum.dim_IntList: total,
    aten.prod.dim_int: _product,
    aten.cumsum.default: _cumulative_sum,
    aten.amax.default: _extreme(aten.amax.default),
    aten.amin.default: _extreme(aten.amin.default),
    aten.any.default: _truth(aten.amax.default),
    aten.any.dim: _truth(aten.amax.default),
    aten.any.dims: _truth(aten.amax.default),
    aten.all.default: _truth(aten.amin.default),
    aten.all.dim: _truth(aten.amin.default),
    aten.all.dims: _truth(aten.amin.default),
    aten.max.default: _extreme(aten.amax.default),
    aten.min.default: _extreme(aten.amin.default),
    aten.max.dim: _extreme_with_place(aten.amax.default, aten.argmax.default),
    aten.min.dim: _extreme_with_place(aten.amin.default, aten.argmin.default),
    aten.argmax.default: _argument(aten.argmax.default),
    aten.argmin.default: _argument(aten.argmin.default),
    aten.var.default: lambda b, x, unbiased=True: variance(b, x, None, unbiased),
    aten.var.dim: variance,
    aten.var.correction: _variance,
    aten.std.default: _root(lambda b, x, unbiased=True: variance(b, x, None, unbiased)),
    aten.std.dim: _root(variance),
    aten.std.correction: _root(_variance),
    aten.var_mean.correction: _variance_and_mean,
    aten.logsumexp.default: _log_sum_exp,
    aten.linalg_vector_norm.default: norm,
    aten.linalg_norm.default: _norm_of_vectors,
    aten.norm.Scalar: norm,
    aten.norm.ScalarOpt_dim: norm,
    aten.frobenius_norm.dim: lambda b, x, dim, keepdim=False: norm(b, x, 2, dim, keepdim),
    aten.softmax.int: _softmax(aten.softmax.int),
    aten.log_softmax.int: _softmax(aten.log_softmax.int),
    aten._softmax.default: _softmax(aten.softmax.int),
    aten._log_softmax.default: _softmax(aten.log_softmax.int),
}
