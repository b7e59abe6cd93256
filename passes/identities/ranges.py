"""Within which bounds do a call's results lie, as far as its operator alone tells?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call


@dataclass(frozen=True)
class Range:
    """All results that are numbers lie in ``[low, high]``."""

    low: float = -inf
    high: float = inf


def clamp_range(node: Node) -> Range | None:
    """The bounds of a call that does nothing but clamp (`relu`, `clamp`), or None."""
    if is_call(node, aten.relu.default):
        return Range(low=0)
    if not is_call(node, aten.clamp.default):
        return None
    args = arguments(node)
    low = -inf if args["min"] is None else args["min"]
    high = inf if args["max"] is None else args["max"]
    return Range(low, high) if low <= high else None


def value_range(node: Node) -> Range:
    """The bounds of any call's result."""
    clamped = clamp_range(node)
    if clamped is not None:
        return clamped
    if is_call(node, aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int):
        return Range(0, 1)
    if is_call(node, aten.exp.default, aten.abs.default):
        return Range(low=0)
    return Range()
