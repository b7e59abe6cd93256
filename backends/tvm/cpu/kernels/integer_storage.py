"""How weights of integer layers are stored: in 8 bits, or in 4 where all are that small. Where a kernel reads them in
more, they are widened when the model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from tvm import tirx

from lvc.backends.tvm.nest import Expr, Stmt, block, grid, load, store, tasks


def stored_bits(weight: np.ndarray) -> int:
    """Bits that hold each of some integers of 8 bits."""
    return 4 if weight.size and weight.min() >= -8 and weight.max() <= 7 else 8


def narrowed(packed: np.ndarray, element: str, bits: int) -> np.ndarray:
    """Packed weights, whose elements have some type, as int8 in rows; of 4 bits, the second half of a row lies in the
    upper halves of the first."""
    rows = packed.view(element).astype(np.int8)
    if bits == 8:
        return rows
    low, high = np.split(rows, 2, axis=-1)
    return (low & 0xF) | (high << 4)


def narrowed_shape(packed: Sequence[int], size: int, bits: int) -> tuple[int, ...]:
    """The shape in which packed weights are stored, 4 bytes of which hold elements of ``size`` bytes."""
    *outer, lanes = packed
    return (*outer, lanes * (4 // size) * bits // 8)


@cache
def widen_function(packed: tuple[int, ...], element: str, bits: int) -> Any:
    """The TIR function that makes packed weights of stored ones."""
    size, dtype = np.dtype(element).itemsize, "float32" if element == "float32" else "int32"
    shape = narrowed_shape(packed, size, bits)
    stored, wide = tirx.decl_buffer(shape, "int8", "stored"), tirx.decl_buffer(packed, dtype, "wide")
    count, words = shape[-1], packed[-1] * bits // 8

    def keep(values: Expr, place: Sequence[Expr], first: int) -> Stmt:
        whole = tirx.Cast(f"{element}x{count}", values) if element != "int8" else values
        return store(wide, tirx.reinterpret(f"{dtype}x{words}", whole), [*place, first], words)

    def widen(*place: Expr) -> Stmt:
        values = load(stored, [*place, 0], count)
        if bits == 8:
            return keep(values, place, 0)
        four = tirx.Broadcast(tirx.const(4, "int8"), count)
        return block(keep(values << four >> four, place, 0), keep(values >> four, place, words))

    first, *outer, _ = packed
    body = tasks((first,), lambda task: grid(outer, lambda *place: widen(task, *place)))
    return tirx.PrimFunc([stored, wide], body).with_attr("tirx.noalias", True)
