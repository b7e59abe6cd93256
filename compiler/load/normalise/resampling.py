"""Interpolation, in the spelling that takes either an output size or factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule
from lvc.compiler.load.normalise.movement import reshape, unsqueeze

aten = torch.ops.aten


def _nearest(b: Builder, x: Operand, size: Sequence[int], *scales: float | None) -> Operand:
    return b.call(aten.upsample_nearest2d.vec, x, *_size_or_factors(size, scales))


def _smooth(overload: OpOverload) -> Rule:
    def rule(b: Builder, x: Operand, size: Sequence[int], align_corners: bool, *scales: float | None) -> Operand:
        size_, factors = _size_or_factors(size, scales)
        return b.call(overload, x, size_, align_corners, factors)

    return rule


def _size_or_factors(
    size: Sequence[int], scales: Sequence[float | None]
) -> tuple[list[int] | None, list[float | None] | None]:
    """Given factors decide where samples lie, so they win over the size that follows from them."""
    if len(scales) == 2 and None not in scales:
        return None, list(scales)
    return list(size), None


def _one_dimension(overload: OpOverload) -> Rule:
    """A rule on ``(N, C, L)`` from the operator on ``(N, C, 1, L)``."""

    def rule(b: Builder, x: Operand, size: Sequence[int] | None, *rest: Any) -> Operand:
        *corners, factors = rest
        wide = b.call(
            overload,
            unsqueeze(b, x, -2),
            None if size is None else [1, *size],
            *corners,
            None if factors is None else [1.0, *factors],
        )
        return reshape(b, wide, (*wide.shape[:-2], wide.shape[-1]))

    return rule


RESAMPLING: dict[OpOverload, Rule] = {
    aten.upsample_nearest2d.default: _nearest,
    aten.upsample_bilinear2d.default: _smooth(aten.upsample_bilinear2d.vec),
    aten.upsample_bicubic2d.default: _smooth(aten.upsample_bicubic2d.vec),
    aten.upsample_linear1d.vec: _one_dimension(aten.upsample_bilinear2d.vec),
}
