"""The largest and the smallest, infinities and booleans too. What is compared with NaN gives NaN, as in PyTorch.

The instructions of x86 for the larger of two give the second one where there is no order. So limits come first and
numbers second, at no cost; of two numbers the first is looked at by itself.
"""

from __future__ import annotations

from tvm import te, tirx

from lvc.backends.tvm.comparisons import is_float, is_number
from lvc.backends.tvm.scope import Expr, dtype_of, let


def lowest(dtype: str) -> Expr:
    """What is below all other numbers of a type."""
    if dtype == "bool":
        return tirx.const(False, "bool")
    return -tirx.infinity(dtype) if "float" in dtype else tirx.min_value(dtype)


def highest(dtype: str) -> Expr:
    """What is above all other numbers of a type."""
    if dtype == "bool":
        return tirx.const(True, "bool")
    return tirx.infinity(dtype) if "float" in dtype else tirx.max_value(dtype)


def at_least(x: Expr, limit: Expr) -> Expr:
    """A number, or a limit where the number is below."""
    return let(x, lambda v: tirx.Select(v < limit, limit, v)) if is_float(x) else tirx.max(x, limit)


def at_most(x: Expr, limit: Expr) -> Expr:
    """A number, or a limit where the number is above."""
    return let(x, lambda v: tirx.Select(v > limit, limit, v)) if is_float(x) else tirx.min(x, limit)


def larger(x: Expr, y: Expr) -> Expr:
    """The larger of two."""
    if dtype_of(x) == "bool":
        return tirx.Or(x, y)
    return let(x, lambda v: tirx.Select(is_number(v), tirx.max(v, y), v)) if is_float(x) else tirx.max(x, y)


def smaller(x: Expr, y: Expr) -> Expr:
    """The smaller of two."""
    if dtype_of(x) == "bool":
        return tirx.And(x, y)
    return let(x, lambda v: tirx.Select(is_number(v), tirx.min(v, y), v)) if is_float(x) else tirx.min(x, y)


largest = te.comm_reducer(larger, lowest, name="largest")
smallest = te.comm_reducer(smaller, highest, name="smallest")
