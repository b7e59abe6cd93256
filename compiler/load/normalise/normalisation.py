"""Normalisation: the layers themselves stay; their variants become them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.arithmetic import add, mul, sub, unary
from lvc.compiler.load.normalise.builder import Builder, Operand, Rule
from lvc.compiler.load.normalise.movement import reshape
from lvc.compiler.load.normalise.reduction import mean, variance

aten = torch.ops.aten
Maybe = Operand | None


def batch_norm(
    b: Builder,
    x: Operand,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Operand:
    """A layer that keeps no statistics takes those of its input; every other one is in evaluation mode."""
    if running_mean is None or running_var is None or training:
        return _by_own_statistics(b, x, weight, bias, eps)
    stored = (weight, bias, running_mean, running_var)
    return b.call(aten.batch_norm.default, x, *stored, False, momentum, eps, False)


def _by_own_statistics(b: Builder, x: Operand, weight: Maybe, bias: Maybe, eps: float) -> Operand:
    dims = [d for d in range(x.rank) if d != 1]
    spread = add(b, variance(b, x, dims, False, True), eps)
    x = mul(b, sub(b, x, mean(b, x, dims, True)), unary(b, aten.rsqrt, spread))
    column = [1, x.shape[1]] + [1] * (x.rank - 2)
    x = mul(b, x, reshape(b, weight, column)) if weight is not None else x
    return add(b, x, reshape(b, bias, column)) if bias is not None else x


def _native(training: bool | None = None) -> Rule:
    """The forms that also return batch statistics, which nothing may read in evaluation mode."""

    def rule(
        b: Builder, x: Operand, weight: Maybe, bias: Maybe, mean: Maybe, var: Maybe, *rest: object
    ) -> tuple[Operand, ...]:
        flag, (momentum, eps) = (training, rest) if training is not None else (rest[0], rest[1:3])
        return (batch_norm(b, x, weight, bias, mean, var, bool(flag), momentum, eps),)  # type: ignore[arg-type]

    return rule


def _without_statistics(
    b: Builder, x: Operand, weight: Maybe, bias: Maybe, training: bool, momentum: float, eps: float
) -> tuple[Operand, ...]:
    return (_by_own_statistics(b, x, weight, bias, eps),)


def instance_norm(
    b: Builder,
    x: Operand,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Operand:
    """By the statistics of the input; by those that the layer keeps it is a `batch_norm`."""
    if not use_input_stats:
        return batch_norm(b, x, weight, bias, running_mean, running_var, False, momentum, eps)
    return b.call(aten.instance_norm.default, x, weight, bias, None, None, True, momentum, eps, False)


def layer_norm(
    b: Builder,
    x: Operand,
    normalized_shape: Sequence[int],
    weight: Maybe = None,
    bias: Maybe = None,
    eps: float = 1e-5,
    cudnn_enable: bool = False,
) -> Operand:
    return b.call(aten.layer_norm.default, x, list(normalized_shape), weight, bias, eps, False)


def group_norm(
    b: Builder,
    x: Operand,
    num_groups: int,
    weight: Maybe = None,
    bias: Maybe = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Operand:
    return b.call(aten.group_norm.default, x, num_groups, weight, bias, eps, False)


def _native_group_norm(
    b: Builder, x: Operand, weight: Maybe, bias: Maybe, n: int, c: int, area: int, group: int, eps: float
) -> tuple[Operand, ...]:
    return (group_norm(b, x, group, weight, bias, eps),)


def _rms_norm(
    b: Builder, x: Operand, normalized_shape: Sequence[int], weight: Maybe = None, eps: float | None = None
) -> Operand:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    dims = list(range(x.rank - len(normalized_shape), x.rank))
    power = add(b, mean(b, mul(b, x, x), dims, True), eps)
    x = mul(b, x, unary(b, aten.rsqrt, power))
    return mul(b, x, weight) if weight is not None else x


NORMALISATION: dict[OpOverload, Rule] = {
    aten.batch_norm.default: batch_norm,
    aten.native_batch_norm.default: _native(),
    aten._native_batch_norm_legit.default: _native(),
    aten._native_batch_norm_legit.no_stats: _without_statistics,
    aten._native_batch_norm_legit_no_training.default: _native(training=False),
    aten.instance_norm.default: instance_norm,
    aten.layer_norm.default: layer_norm,
    aten.native_layer_norm.default: lambda b, *args: (layer_norm(b, *args),),
    aten.group_norm.default: group_norm,
    aten.native_group_norm.default: _native_group_norm,
    aten.rms_norm.default: _rms_norm,
}
