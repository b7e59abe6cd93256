"""Comparisons of numbers, among which NaN may be: it equals nothing, and has no place in any order.

TVM takes floats for a total order: it turns ``not x < y`` into ``y <= x``, ``x < y or y <= x`` into true, and its
``x != y`` is false for NaN. So the truth of a comparison is handed on as an integer, in which it sees none.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

Expr = Any  # a TIR expression; TVM's own types are not annotated


def is_float(x: Expr) -> bool:
    """Whether an expression, of any number of lanes, has a floating-point type."""
    return str(x.ty.dtype).startswith("float")


def truth(comparison: Expr) -> Expr:
    """Whether a comparison holds."""
    return tirx.EQ(tirx.Cast("int8", comparison), tirx.const(1, "int8"))


def untruth(comparison: Expr) -> Expr:
    """Whether a comparison does not hold."""
    return tirx.EQ(tirx.Cast("int8", comparison), tirx.const(0, "int8"))


def different(x: Expr, y: Expr) -> Expr:
    """Whether two numbers are not equal."""
    return untruth(tirx.EQ(x, y)) if is_float(x) else tirx.NE(x, y)


def is_number(x: Expr) -> Expr:
    """Whether a float is no NaN. TVM's own test is computed lane by lane."""
    lanes = x.ty.dtype.lanes
    infinite = tirx.infinity(str(x.ty.dtype).partition("x")[0])
    return x <= (tirx.Broadcast(infinite, lanes) if lanes > 1 else infinite)
