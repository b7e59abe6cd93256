"""Interpolation that has no operator of its own: what PyTorch makes of unit vectors along an axis is a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import LARGEST_CONSTANT, Builder, Operand, Rule, Unsupported
from lvc.compiler.load.normalise.movement import permute

aten = torch.ops.aten

_SIDE = 2
"""The size of the axes that stay: PyTorch's antialiasing of images one pixel wide is wrong."""


def interpolated(overload: OpOverload) -> Rule:
    """A product with a matrix along each spatial axis; they are those of PyTorch's own kernel."""

    def rule(b: Builder, x: Operand, size: Sequence[int] | None, *rest: Any) -> Operand:
        if not x.dtype.is_floating_point:
            raise Unsupported("it interpolates integers")
        for axis, (length, options) in enumerate(_each_axis(overload, x, size, rest)):
            count, sides = x.shape[2 + axis], _at([_SIDE] * (x.rank - 2), axis, 1)
            if length * count * x.dtype.itemsize > LARGEST_CONSTANT:
                raise Unsupported(f"the matrix from {count} to {length} elements is too large to be stored")
            units = torch.eye(count, dtype=x.dtype).reshape(1, count, *_at([1] * len(sides), axis, count))
            matrix = (
                overload(units.repeat(1, 1, *sides), *options).movedim(2 + axis, 2).reshape(count, length, -1)[..., 0]
            )
            if not matrix.equal(torch.eye(count, dtype=x.dtype)):
                x = _multiplied(b, x, 2 + axis, matrix)
        return x

    return rule


def picked(overload: OpOverload) -> Rule:
    """Slices along each spatial axis, at the places that PyTorch's own kernel takes."""

    def rule(b: Builder, x: Operand, size: Sequence[int] | None, *rest: Any) -> Operand:
        for axis, (length, options) in enumerate(_each_axis(overload, x, size, rest)):
            count, sides = x.shape[2 + axis], _at([_SIDE] * (x.rank - 2), axis, 1)
            numbers = torch.arange(count, dtype=torch.float64).reshape(1, 1, *_at([1] * len(sides), axis, count))
            picked = overload(numbers.repeat(1, 1, *sides), *options).movedim(2 + axis, 2)
            places = picked.reshape(length, -1)[:, 0].to(torch.int64)
            if not places.equal(torch.arange(count)):
                x = b.call(aten.index_select.default, x, 2 + axis, b.constant(places))
        return x

    return rule


def _each_axis(
    overload: OpOverload, x: Operand, size: Sequence[int] | None, rest: Sequence[Any]
) -> list[tuple[int, list[Any]]]:
    """For each spatial axis the length of the result, and the options by which this axis alone is resized."""
    by_list = overload._overloadname == "vec"
    count = x.rank - 2
    flags = [option for option in rest if isinstance(option, bool)]
    given = rest[len(flags) :]
    factors = list((given[0] if given else None) or [None] * count) if by_list else list(given) or [None] * count
    found = []
    for axis, factor in enumerate(factors):
        length = size[axis] if size is not None else math.floor(x.shape[2 + axis] * factor)
        sides = [_SIDE] * count
        if not by_list:
            options = [_at(sides, axis, length), *flags, *[factor if a == axis else None for a in range(count)]]
        elif size is None:
            options = [None, *flags, [factor if a == axis else 1.0 for a in range(count)]]
        else:
            options = [_at(sides, axis, length), *flags, None]
        found.append((length, options))
    return found


def _at(values: Sequence[int], place: int, value: int) -> list[int]:
    return [value if i == place else other for i, other in enumerate(values)]


def _multiplied(b: Builder, x: Operand, axis: int, matrix: torch.Tensor) -> Operand:
    """``x`` times a matrix (from, to) along an axis."""
    if axis == x.rank - 2:
        return b.call(aten.matmul.default, b.constant(matrix.T.contiguous()), x)
    order = [*(d for d in range(x.rank) if d != axis), axis]
    product = b.call(aten.matmul.default, permute(b, x, order), b.constant(matrix))
    return permute(b, product, [order.index(d) for d in range(x.rank)])


SEPARABLE: dict[OpOverload, Rule] = {
    **{
        getattr(packet, form): interpolated(getattr(packet, form))
        for packet in (aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa, aten.upsample_trilinear3d)
        for form in ("default", "vec")
    },
    aten.upsample_linear1d.default: interpolated(aten.upsample_linear1d.default),
    **{
        getattr(packet, form): picked(getattr(packet, form))
        for packet in (
            aten.upsample_nearest1d,
            aten.upsample_nearest3d,
            aten._upsample_nearest_exact1d,
            aten._upsample_nearest_exact2d,
            aten._upsample_nearest_exact3d,
        )
        for form in ("default", "vec")
    },
}
