"""Copies of an image's rows with their padding."""

from __future__ import annotations

from tvm import tirx

from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, block, grid, load, loop, store, zeros


def copy_padded_rows(padded: Buffer, data: Buffer, image: Expr, top: Expr, left: int) -> Stmt:
    """Fill ``padded`` ``[channels, rows, columns, lanes]`` with the part of an image that begins at row ``top``, column
    ``-left``; zeros where there is no image. The data is blocked, or plain where there is one lane a pixel."""
    channels, rows, columns, lanes = (int(extent) for extent in padded.shape)
    height, width = int(data.shape[2]), int(data.shape[3])
    copied = max(min(width, columns - left), 0)

    def clear(channel: Expr, row: Expr, start: int, count: int) -> Stmt:
        def column(x: Expr) -> Stmt:
            return store(padded, zeros(lanes), [channel, row, x, 0], lanes)

        return loop(count, column, start=start)

    def copy(channel: Expr, row: Expr) -> Stmt:
        def column(x: Expr) -> Stmt:
            place = [image, channel, top + row, x]
            value = load(data, [*place, 0], lanes) if len(data.shape) == 5 else load(data, place)
            return store(padded, value, [channel, row, x + left, 0], lanes)

        return loop(copied, column)

    def line(channel: Expr, row: Expr) -> Stmt:
        inside = tirx.all(top + row >= 0, top + row < height)
        parts = [copy(channel, row)] if copied else []
        if left:
            parts.append(clear(channel, row, 0, left))
        if columns > left + copied:
            parts.append(clear(channel, row, left + copied, columns - left - copied))
        return tirx.IfThenElse(inside, block(*parts), clear(channel, row, 0, columns))

    return grid((channels, rows), line)
