"""How much an operator may round: relative to what, and how much more than one operation, by how many terms it sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fuzzing.composites import family as family_of
from lvc.compiler.ir.dialect import Family

IN_NOISE = 16
"""Sums of so many terms round no more than the noise that every operator has."""


def rounded_size(
    op: str, given: Mapping[str, Any], before: Sequence[int], result: torch.Tensor, magnitudes: Callable[[], Any]
) -> float:
    """The size of a result's rounding, to be multiplied by the noise of one operation.

    It is relative to the largest element of the result, or where that is a sum to what its terms are in size: a few of
    them may cancel. ``magnitudes`` computes the result of the absolute values of all operands.
    """
    family = family_of(op)
    size = largest(result)
    if family in (Family.REDUCTION, Family.POOLING, Family.CONTRACTION) and result.is_floating_point():
        terms = max(1.0, _terms(op, given, before, result.shape))
        size = max(size, largest(magnitudes()) / (terms**0.5 if family is Family.CONTRACTION else 1.0))
    if op in ("instance_norm", "group_norm"):
        size = max(size, _scaled(given, before))
    return size * magnified(op, given, before, result.shape)


def _scaled(given: Mapping[str, Any], before: Sequence[int]) -> float:
    """What normalisation subtracts, scaled as its result: nearly equal elements are multiplied by up to eps^-1/2, and
    then cancel."""
    x, weight = given["input"], given.get("weight")
    rows = x.reshape(before[0], int(given.get("num_groups") or before[1]), -1)
    spread = (rows.var(-1, unbiased=False) + float(given["eps"])).rsqrt()
    scale = 1.0 if weight is None else largest(weight)
    return float((rows.abs().amax(-1) * spread).max()) * scale if x.numel() else 0.0


def absolute(value: Any) -> Any:
    """The magnitudes of a floating-point operand; anything else as it is."""
    return value.abs() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def largest(value: torch.Tensor) -> float:
    """The largest magnitude of a finite element."""
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def magnified(op: str, given: Mapping[str, Any], before: Sequence[int], after: Sequence[int]) -> float:
    """The noise of a call as a multiple of that of one operation; ``before`` is the shape of its first operand.

    Terms of one sign, or all the same, round to the same side: a sum in order is off by half a unit for each term.
    Products with weights of both signs are off by the root of that. Resampling computes the place that it reads, as
    large a number as the image has rows; what lies between two neighbours is off by as many units.
    """
    count = _terms(op, given, before, after)
    is_mixed = family_of(op) is Family.CONTRACTION
    return max(1.0, (count**0.5 if is_mixed else count) / IN_NOISE)


def _terms(op: str, given: Mapping[str, Any], before: Sequence[int], after: Sequence[int]) -> float:
    family, size = family_of(op), math.prod(before)
    if family is Family.CONTRACTION and "conv" in op and "lvc" not in op:
        weight = _shape(given["weight"])
        return math.prod(weight[2:]) * (weight[0] if "transpose" in op else weight[1])
    if family is Family.CONTRACTION and "weights" in given:
        return math.prod(before) * int(given["layers"])
    if family is Family.CONTRACTION:
        return before[-1]
    if family is Family.RESAMPLING:
        return 4 * max(before[2:])
    if op == "cumsum" or op in ("softmax", "log_softmax"):
        return before[int(given["dim"])] if before else 1
    if op == "layer_norm":
        return int(math.prod(given["normalized_shape"]))
    if op in ("group_norm", "instance_norm"):
        return math.prod(before[2:]) * (before[1] // int(given["num_groups"]) if op == "group_norm" else 1)
    if op == "avg_pool2d":
        return int(math.prod(given["kernel_size"]))
    return size / max(1, math.prod(after)) if family in (Family.REDUCTION, Family.POOLING) else 1


def _shape(value: Any) -> Sequence[int]:
    shape: Sequence[int] = value.shape if isinstance(value, torch.Tensor) else value.meta["spec"].shape
    return shape
