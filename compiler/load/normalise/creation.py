"""Tensors made from nothing, or from the shape of another tensor: constants, all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Result, Rule, evaluate

aten = torch.ops.aten


def _new(value: float | None) -> Rule:
    def rule(
        b: Builder, x: Operand, size: Sequence[int], *args: Any, dtype: torch.dtype | None = None, **_: Any
    ) -> Result:
        fill = args[0] if value is None else value
        return evaluate(b, aten.full.default, (list(size), fill), {"dtype": dtype or x.dtype})

    return rule


def _like(value: float | None) -> Rule:
    def rule(b: Builder, x: Operand, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Result:
        fill = args[0] if value is None else value
        return evaluate(b, aten.full.default, (list(x.shape), fill), {"dtype": dtype or x.dtype})

    return rule


def _triangle(lower: bool) -> Rule:
    def rule(b: Builder, x: Operand, diagonal: int = 0) -> Operand:
        ones = torch.ones(x.shape[-2:], dtype=torch.bool)
        mask = ones.tril(diagonal) if lower else ones.triu(diagonal)
        return b.call(aten.where.self, b.constant(mask), x, b.scalar(0, x.dtype))

    return rule


CREATION: dict[OpOverload, Rule] = {
    aten.new_zeros.default: _new(0),
    aten.new_empty.default: _new(0),
    aten.new_ones.default: _new(1),
    aten.new_full.default: _new(None),
    aten.zeros_like.default: _like(0),
    aten.empty_like.default: _like(0),
    aten.ones_like.default: _like(1),
    aten.full_like.default: _like(None),
    aten.tril.default: _triangle(lower=True),
    aten.triu.default: _triangle(lower=False),
}

CONSTANT_ONLY: frozenset[OpOverload] = frozenset(
    {
        aten.arange.default,
        aten.arange.start,
        aten.arange.start_step,
        aten.zeros.default,
        aten.ones.default,
        aten.full.default,
        aten.empty.memory_format,
        aten.eye.default,
        aten.eye.m,
        aten.linspace.default,
        aten.scalar_tensor.default,
        aten.meshgrid.default,
        aten.meshgrid.indexing,
        aten.outer.default,
        aten.diff.default,
        aten.cumprod.default,
        aten.nonzero.default,
        aten.bitwise_left_shift.Tensor,
        aten.bitwise_right_shift.Tensor,
        aten.atan2.default,
        aten.isfinite.default,
        aten.bucketize.Tensor,
    }
)
"""Operators that may only be applied to constants, and are gone once they were."""
