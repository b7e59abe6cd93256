"""The largest and the smallest: reducers that begin below (above) every number, infinities too, and know booleans."""

from __future__ import annotations

from tvm import te, tirx

from lvc.backends.tvm.scope import Expr, dtype_of


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


def larger(x: Expr, y: Expr) -> Expr:
    return tirx.Or(x, y) if dtype_of(x) == "bool" else tirx.max(x, y)


def smaller(x: Expr, y: Expr) -> Expr:
    return tirx.And(x, y) if dtype_of(x) == "bool" else tirx.min(x, y)


largest = te.comm_reducer(larger, lowest, name="largest")
smallest = te.comm_reducer(smaller, highest, name="smallest")
