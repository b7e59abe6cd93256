"""TIR of single instructions, by LLVM's names."""

from __future__ import annotations

from typing import Any

Expr = Any


def intrinsic(dtype: str, name: str, *operands: Expr) -> Expr:
    """A call without side effects."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *operands)


def function(name: str, sums: Expr, *operands: Expr) -> Expr:
    """A call of a function that `InstructionSet.declarations` defines, whose result has the type of its sums."""
    from tvm import tirx

    return tirx.call_extern(str(sums.ty.dtype), name, sums, *operands)


def signed_and_unsigned(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Two vectors of 32 bits as bytes: the left signed, the right not."""
    from tvm import tirx

    count = 4 * left.ty.dtype.lanes
    return tirx.reinterpret(f"int8x{count}", left), tirx.reinterpret(f"uint8x{count}", right)
