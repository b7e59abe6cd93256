"""The loops of pooling and depthwise convolution, which reduce the windows of each block of channels by itself.

The rows of taps inside the image are found at run time, the columns while the nest is written, so that no padding is
ever stored; only where that would be too much code, each task copies its rows with their padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators, Run, cut
from lvc.backends.tvm.cpu.kernels.windows import Axis, Tile, by_column, each_tile, edge_tiles, pairs_inside
from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    grid,
    in_turns,
    load,
    loop,
    scratch,
    splat,
    store,
    tasks,
)

MOST_EDGE_TAPS = 512
"""Taps of the tiles at the edges of a row that may stand in the code one by one."""

Place = tuple[Expr, Expr, Expr, Expr]  # image, block of channels, row, column


@dataclass(frozen=True)
class WindowNest:
    """The nest. ``pixels`` outputs are a register tile; the rows of one block are split into ``row_parts``.

    ``read`` gives an element of the data, a vector of ``lanes``, in the type ``dtype`` of the sums; ``identity`` is the
    sum of no taps, and what stands outside the image. ``add(register, value, block, ky, kx)`` takes in the element at a
    tap, and ``finish(place, register)`` writes an output.
    """

    batch: int
    blocks: int
    lanes: int
    rows: Axis
    columns: Axis
    pixels: int
    row_parts: int
    dtype: str
    identity: Expr
    read: Callable[[Place], Expr]
    add: Callable[[Buffer, Expr, Expr, Expr, Expr], Stmt]
    finish: Callable[[Place, Buffer], Stmt]

    def build(self) -> Stmt:
        """The nest's loops."""
        return tasks((self.batch, self.blocks, self.row_parts), self.task)

    @cached_property
    def is_copied(self) -> bool:
        """Whether the windows at the edges are too wide for their taps to be known while the nest is written."""
        tiles = edge_tiles(self.columns, self._runs)
        return sum(len(pairs_inside(self.columns, tile)) for tile in tiles) > MOST_EDGE_TAPS

    @cached_property
    def _runs(self) -> tuple[Run, ...]:
        return cut(self.columns.outputs, self.pixels)

    @cached_property
    def _part(self) -> int:
        return -(-self.rows.outputs // self.row_parts)

    def task(self, image: Expr, channel: Expr, part: Expr) -> Stmt:
        """Some of the rows of one block of channels."""
        first, count = part * self._part, self._part
        if self._part * self.row_parts != self.rows.outputs:
            count = tirx.max(tirx.min(self._part, self.rows.outputs - first), 0)

        def lines(read: Callable[[Place], Expr]) -> Stmt:
            return loop(count, lambda row: self._line((image, channel, row), read), name="row", start=first)

        if not self.is_copied:
            return lines(self.read)
        shape = [self.rows.reach(self._part), self.columns.reach(self.columns.outputs), self.lanes]
        padded, corner = scratch(shape, "padded", self.dtype), (self.rows.position(first, 0), -self.columns.before)

        def copied(place: Place) -> Expr:
            return load(padded, [place[2] - corner[0], place[3] - corner[1], 0], self.lanes)

        return allocate([padded], self._copy(padded, (image, channel), corner), lines(copied))

    def _copy(self, padded: Buffer, outer: tuple[Expr, Expr], corner: tuple[Expr, int]) -> Stmt:
        """Fill ``padded`` ``[rows, columns, lanes]`` with what begins at a corner."""

        def element(y: Expr, x: Expr) -> Stmt:
            row, column = y + corner[0], x + corner[1]
            inside = tirx.all(row >= 0, row < self.rows.size, column >= 0, column < self.columns.size)
            value, identity = self.read((*outer, row, column)), splat(self.identity, self.lanes)
            writes = (store(padded, v, [y, x, 0], self.lanes) for v in (value, identity))
            return tirx.IfThenElse(inside, *writes)

        return grid([int(size) for size in padded.shape[:2]], element)

    def _line(self, place: tuple[Expr, Expr, Expr], read: Callable[[Place], Expr]) -> Stmt:
        return each_tile(
            self.columns, self._runs, lambda tile: self._tile(place, tile, read), has_numbers=not self.is_copied
        )

    def _tile(self, place: tuple[Expr, Expr, Expr], tile: Tile, read: Callable[[Place], Expr]) -> Stmt:
        image, channel, row = place
        sums = Accumulators.make(1, tile.size, self.lanes, self.dtype)

        def tap(ky: Expr, kx: Expr, pixel: int) -> Stmt:
            position = self.rows.position(row, ky), self.columns.position(tile.first + pixel, kx)
            return self.add(sums.at(0, pixel), read((image, channel, *position)), channel, ky, kx)

        first, count = self.rows.taps(row)
        return allocate(
            sums.buffers,
            sums.each(lambda v, s: store(sums.at(v, s), splat(self.identity, self.lanes), [0], self.lanes)),
            loop(count, lambda ky: self._taps(tile, lambda *at: tap(ky, *at)), name="ky", start=first),
            sums.each(lambda _, s: self.finish((*place, tile.first + s), sums.at(0, s))),
        )

    def _taps(self, tile: Tile, tap: Callable[[Expr, int], Stmt]) -> Stmt:
        """Take in one row of taps."""
        columns = self.columns
        if tile.is_clear:

            def turn(first: Expr, count: int) -> Stmt:
                return block(*(tap(first + kx, pixel) for pixel, kx in by_column(columns, tile.size, count)))

            return in_turns(columns.kernel, turn)
        if not self.is_copied:
            statements = [tap(kx, pixel) for pixel, kx in pairs_inside(columns, tile)]
            return block(*statements) if statements else tirx.Evaluate(0)
        first, count = columns.taps(tile.first, tile.size)
        return loop(count, lambda kx: block(*(tap(kx, i) for i in range(tile.size))), name="kx", start=first)
