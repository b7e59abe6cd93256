"""Selections whose branches may read outside of memory, made conditions under which alone they are computed.

TVM means both by ``Select`` and turns the unsafe ones over in a pass of its own; here it is done as functions are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tvm_ffi
from tvm import ir, tirx

from lvc.backends.tvm.fused import Fused, take_apart
from lvc.backends.tvm.gpu.expressions import Range, bounds
from lvc.backends.tvm.nest import Expr


def guarded(value: Expr, known: Mapping[Any, Range]) -> Expr:
    """An expression whose selections only select between what can be computed; ``known`` are the ranges of axes."""

    def select(node: Any, mutator: Any) -> Any:
        node = mutator.default_mutate(node)
        if all(_is_safe(branch, known) for branch in (node.true_value, node.false_value)):
            return node
        return tirx.if_then_else(node.condition, node.true_value, node.false_value)

    return tvm_ffi.structural_mutate(value, [(tirx.Select, select)])


def _is_safe(value: Expr, known: Mapping[Any, Range]) -> bool:
    loads: list[Any] = []
    tvm_ffi.structural_walk(value, [(ir.TensorLoad, loads.append)])
    return all(_is_inside(load, known) for load in loads)


def _is_inside(load: Any, known: Mapping[Any, Range]) -> bool:
    ranges = [bounds(index, known) for index in load.indices]
    sizes = [int(extent) for extent in load.source.shape]
    return all(found and found[0] >= 0 and found[1] < size for found, size in zip(ranges, sizes, strict=True))


def fused_of(sch: Any) -> Fused:
    """A fused function, taken apart; its tail reads nothing that is not there."""
    fused = take_apart(sch)
    known = {axis: (0, int(extent) - 1) for axis, extent in zip(fused.axes, fused.output.shape, strict=True)}
    return replace(fused, value=guarded(fused.value, known))
