"""Copies of operands: an image's rows with their padding, and what a kernel reads in another type."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import DotOperand
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, grid, load, loop, splat, store

Convert = Callable[[Expr], Expr]  # elements as they lie in memory, as elements of the copy

_LANES = 16


def copy_converted(copy: Buffer, data: Buffer, convert: Convert, place: tuple[Expr, ...] = ()) -> Stmt:
    """Fill a copy of a matrix, which is at a place in the outer dimensions of the data."""
    rows, columns = (int(extent) for extent in copy.shape)
    full = columns // _LANES

    def part(row: Expr, column: Expr, lanes: int) -> Stmt:
        return store(copy, convert(load(data, [*place, row, column], lanes)), [row, column], lanes)

    def line(row: Expr) -> Stmt:
        vectors = [loop(full, lambda i: part(row, i * _LANES, _LANES))] if full else []
        rest = range(full * _LANES, columns)
        return block(*vectors, *(part(row, column, 1) for column in rest))

    return loop(rows, line, name="row")


def copy_padded_rows(padded: Buffer, data: Buffer, image: Expr, corner: tuple[Expr, int], operand: DotOperand) -> Stmt:
    """Fill ``padded`` ``[channels, rows, columns, lanes]`` with the part of an image that begins at a corner, a row and
    a column, as elements of words, with what stands for zero where it reaches out of the image. The data is blocked;
    plain if there is one lane."""
    top, left = corner
    channels, rows, columns, lanes = (int(extent) for extent in padded.shape)
    height, width = int(data.shape[2]), int(data.shape[3])
    first = min(max(-left, 0), columns)
    end = max(min(width - left, columns), first)

    def clear(channel: Expr, row: Expr, start: int, stop: int) -> list[Stmt]:
        def column(x: Expr) -> Stmt:
            blank = splat(tirx.const(operand.converted_padding, padded.dtype), lanes)
            return store(padded, blank, [channel, row, x, 0], lanes)

        return [loop(stop - start, column, start=start)] if stop > start else []

    def copy(channel: Expr, row: Expr) -> list[Stmt]:
        def column(x: Expr) -> Stmt:
            place = [image, channel, top + row, x + left]
            value = load(data, [*place, 0], lanes) if len(data.shape) == 5 else load(data, place)
            return store(padded, operand.convert(value), [channel, row, x, 0], lanes)

        return [loop(end - first, column, start=first)] if end > first else []

    def line(channel: Expr, row: Expr) -> Stmt:
        whole = [*clear(channel, row, 0, first), *copy(channel, row), *clear(channel, row, end, columns)]
        inside = tirx.all(top + row >= 0, top + row < height)
        return tirx.IfThenElse(inside, block(*whole), block(*clear(channel, row, 0, columns)))

    return grid((channels, rows), line)
