"""Squares of elements, transposed in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.point_transform import Registers
from lvc.backends.tvm.nest import Expr, int32


def transposed(registers: Registers, rows: Sequence[Expr]) -> list[Expr]:
    """The columns of a square, a power of two wide, whose rows are vectors; by as many stages as the power."""
    values = [registers.keep(row) for row in rows]
    for stage in range(len(rows).bit_length() - 1):
        values = [registers.keep(_swapped(values, i, 1 << stage)) for i in range(len(rows))]
    return values


def _swapped(values: list[Expr], row: int, distance: int) -> Expr:
    """A row of a matrix, of whose squares of two by two parts, each so many wide, the two off the diagonal change
    places. Done at all powers of two it is a transposition."""
    count = len(values)
    if row & distance:
        pair, lanes = [values[row - distance], values[row]], range(distance, distance + count)
        places = [lane if not lane - distance & distance else count + lane - distance for lane in lanes]
    else:
        pair = [values[row], values[row + distance]]
        places = [lane if not lane & distance else count + lane - distance for lane in range(count)]
    return tirx.Shuffle(pair, [int32(place) for place in places])
