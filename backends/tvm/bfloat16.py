"""The type bfloat16: the upper half of a float32.

TVM's code generator for LLVM has no such type, so inside kernels it is its bits, of type `BITS`. No other value has
that type, since the dialect has no 16-bit integers. Nothing computes with it but by way of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tvm import tirx

from lvc.backends.tvm.comparisons import is_number

Expr = Any  # a TIR expression; TVM's own types are not annotated

BITS = "uint16"


def widen(bits: Expr) -> Expr:
    """The float32 of the same value."""
    whole = to_int32(bits)
    return tirx.reinterpret(_lanes("float32", bits), whole << like(16, whole))


def narrow(value: Expr) -> Expr:
    """The bits of a float32, rounded to nearest, ties to even; a NaN stays one."""
    bits = tirx.Var("bits", "int32")
    return tirx.Let(bits, tirx.reinterpret("int32", value), rounded_bits(bits))


def rounded_bits(bits: Expr) -> Expr:
    """The same of the bits of a float32, or of a vector of them."""

    def number(value: int) -> Expr:
        return like(value, bits)

    rounded = bits + ((bits >> number(16)) & number(1)) + number(0x7FFF)
    kept = tirx.Select(is_number(tirx.reinterpret(_lanes("float32", bits), bits)), rounded, bits | number(1 << 22))
    return tirx.Cast(_lanes(BITS, bits), kept >> number(16))


def to_int32(bits: Expr) -> Expr:
    """Bits as integers."""
    return tirx.Cast(_lanes("int32", bits), bits)


def like(number: int, value: Expr) -> Expr:
    """An integer in as many lanes as a value has."""
    lanes = value.ty.dtype.lanes
    return tirx.Broadcast(_int32(number), lanes) if lanes > 1 else _int32(number)


def to_bits(values: np.ndarray) -> np.ndarray:
    """Round an array of float32 in the same way."""
    rounded = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(torch.bfloat16)
    return np.asarray(rounded.view(torch.uint16).numpy())


def _int32(number: int) -> Expr:
    return tirx.const(number, "int32")


def _lanes(dtype: str, value: Expr) -> str:
    lanes = value.ty.dtype.lanes
    return f"{dtype}x{lanes}" if lanes > 1 else dtype
