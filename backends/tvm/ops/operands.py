"""Operands of element by element work: broadcast to a shape and converted to a type."""

from __future__ import annotations

import torch
from torch.fx import Node
from tvm import tirx

from lvc.backends.tvm.comparisons import different
from lvc.backends.tvm.scope import Array, Expr, Index, dtype_of, factor_of, scalar_of
from lvc.backends.tvm.short_floats import is_short, narrow, widen
from lvc.compiler.ir.graph import arguments, spec

aten = torch.ops.aten


def broadcast(operand: Array, index: Index) -> Expr:
    """Read an operand at an index of the broadcast shape."""
    inner = index[len(index) - len(operand.shape) :]
    return operand.read([0 if size == 1 else i for size, i in zip(operand.shape, inner, strict=True)])


def cast(value: Expr, dtype: str) -> Expr:
    """Convert an expression as PyTorch does."""
    if dtype_of(value) == dtype:
        return value
    if is_short(dtype_of(value)):
        return cast(widen(value), dtype)
    if is_short(dtype):
        return narrow(cast(value, "float32"), dtype)
    if dtype == "bool":
        return different(value, scalar_of(0, dtype_of(value)))
    return tirx.Cast(dtype, value)


def element(operand: Array | float | int | bool, index: Index, dtype: str) -> Expr:
    """An operand's element, or the number itself, in a type."""
    if isinstance(operand, Array):
        return cast(broadcast(operand, index), dtype)
    return factor_of(operand, dtype)


def common_dtype(node: Node) -> str:
    """The type in which a binary operator computes."""
    values = arguments(node)
    operands = []
    for name in ("self", "other"):
        value = values[name]
        if isinstance(value, Node):
            known = spec(value)
            value = torch.empty(known.shape, dtype=known.dtype, device="meta")
        operands.append(value)
    dtype = torch.result_type(*operands)
    if node.target is aten.div.Tensor and not dtype.is_floating_point:
        dtype = torch.float32
    return str(dtype).removeprefix("torch.")
