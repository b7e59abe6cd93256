"""What can be said of integer expressions without a proof system: bounds and divisors.

TVM's own simplifier is not asked: it is unsound for differently shifted divisions
(`lvc.backends.tvm.shifted_divisions`), and the device compiler folds constants as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import ir, tirx

Range = tuple[int, int]  # the least and the most, both inside


def number(expression: Any) -> int | None:
    """The value of a constant."""
    if isinstance(expression, int):
        return expression
    return int(expression.value) if isinstance(expression, tirx.IntImm) else None


def bounds(expression: Any, known: Mapping[Any, Range]) -> Range | None:
    """Within which numbers an expression lies; None where nothing is known. ``known`` are the ranges of variables."""
    value = number(expression)
    if value is not None:
        return value, value
    if isinstance(expression, tirx.Var):
        return known.get(expression)
    if isinstance(expression, ir.TensorLoad):
        return known.get(expression.source)
    if not isinstance(expression, tirx.Add | tirx.Sub | tirx.Mul | tirx.FloorDiv | tirx.FloorMod | tirx.Min | tirx.Max):
        return None
    a, b = bounds(expression.a, known), bounds(expression.b, known)
    if isinstance(expression, tirx.FloorMod):
        divisor = number(expression.b)
        return None if divisor is None or divisor <= 0 else _modulo(a, divisor)
    if a is None or b is None:
        return None
    return _combined(expression, a, b)


def _modulo(a: Range | None, divisor: int) -> Range:
    return a if a is not None and a[0] >= 0 and a[1] < divisor else (0, divisor - 1)


def _combined(expression: Any, a: Range, b: Range) -> Range | None:
    if isinstance(expression, tirx.Add):
        return a[0] + b[0], a[1] + b[1]
    if isinstance(expression, tirx.Sub):
        return a[0] - b[1], a[1] - b[0]
    if isinstance(expression, tirx.Min | tirx.Max):
        choose = min if isinstance(expression, tirx.Min) else max
        return choose(a[0], b[0]), choose(a[1], b[1])
    if isinstance(expression, tirx.Mul):
        corners = [x * y for x in a for y in b]
        return min(corners), max(corners)
    if b[0] <= 0:
        return None
    corners = [x // y for x in a for y in b]
    return min(corners), max(corners)


def divisor(expression: Any) -> int:
    """A number by which an expression is certainly divisible; 0 of zero."""
    value = number(expression)
    if value is not None:
        return abs(value)
    if isinstance(expression, tirx.Add | tirx.Sub):
        return math.gcd(divisor(expression.a), divisor(expression.b))
    if isinstance(expression, tirx.Mul):
        return divisor(expression.a) * divisor(expression.b)
    if isinstance(expression, tirx.FloorMod):
        return math.gcd(divisor(expression.a), divisor(expression.b))
    return 1
