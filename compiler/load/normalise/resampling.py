"""Interpolation, in the spelling that takes either an output size or factors, and sampling at computed places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.affine_grid import places
from lvc.compiler.load.normalise.builder import LARGEST_CONSTANT, Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import reshape, unsqueeze
from lvc.compiler.load.normalise.regions import SAMPLED

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


def _grid_sampler(b: Builder, x: Operand, at: Operand, *how: Any) -> Operand:
    if x.rank == 5:
        sampled = SAMPLED[aten.grid_sampler_3d.default](b, x, at, *how)
        assert isinstance(sampled, Operand)
        return sampled
    return b.call(aten.grid_sampler_2d.default, x, at, *how)


def _affine_grid(b: Builder, theta: Operand, size: Sequence[int], align_corners: bool) -> Operand:
    """``[N, H, W, 2]``: each matrix of ``theta [N, 2, 3]`` times the places of a picture, as one product."""
    batch, _, *sizes = size
    if math.prod(sizes) * (len(sizes) + 1) * torch.float64.itemsize > LARGEST_CONSTANT:
        raise Unsupported(f"the places of {' x '.join(map(str, sizes))} elements are too many to be stored")
    flat = b.constant(places(sizes, align_corners, theta.dtype))
    product = b.call(aten.matmul.default, flat, b.call(aten.permute.default, theta, [0, 2, 1]))
    return reshape(b, product, (batch, *sizes, len(sizes)))


RESAMPLING: dict[OpOverload, Rule] = {
    **SAMPLED,
    aten.upsample_nearest2d.default: _nearest,
    aten.upsample_bilinear2d.default: _smooth(aten.upsample_bilinear2d.vec),
    aten.upsample_bicubic2d.default: _smooth(aten.upsample_bicubic2d.vec),
    aten.upsample_linear1d.vec: _one_dimension(aten.upsample_bilinear2d.vec),
    aten.grid_sampler.default: _grid_sampler,
    aten.affine_grid_generator.default: _affine_grid,
}
