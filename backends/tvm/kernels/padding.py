"""Copies of an image's rows with their padding."""

from __future__ import annotations

from tvm import tirx

from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, block, grid, load, loop, store, zeros


def copy_padded_rows(padded: Buffer, data: Buffer, image: Expr, top: Expr, left: int) -> Stmt:
    """Fill ``padded`` ``[channels, rows, columns, lanes]`` with the part of an image that begins at row ``top`` and
    column ``left``, with zeros where it reaches out of the image. The data is blocked; plain if there is one lane."""
    channels, rows, columns, lanes = (int(extent) for extent in padded.shape)
    height, width = int(data.shape[2]), int(data.shape[3])
    first = min(max(-left, 0), columns)
    end = max(min(width - left, columns), first)

    def clear(channel: Expr, row: Expr, start: int, stop: int) -> list[Stmt]:
        def column(x: Expr) -> Stmt:
            return store(padded, zeros(lanes, padded.dtype), [channel, row, x, 0], lanes)

        return [loop(stop - start, column, start=start)] if stop > start else []

    def copy(channel: Expr, row: Expr) -> list[Stmt]:
        def column(x: Expr) -> Stmt:
            place = [image, channel, top + row, x + left]
            value = load(data, [*place, 0], lanes) if len(data.shape) == 5 else load(data, place)
            return store(padded, value, [channel, row, x, 0], lanes)

        return [loop(end - first, column, start=first)] if end > first else []

    def line(channel: Expr, row: Expr) -> Stmt:
        whole = [*clear(channel, row, 0, first), *copy(channel, row), *clear(channel, row, end, columns)]
        inside = tirx.all(top + row >= 0, top + row < height)
        return tirx.IfThenElse(inside, block(*whole), block(*clear(channel, row, 0, columns)))

    return grid((channels, rows), line)
