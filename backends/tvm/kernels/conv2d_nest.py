"""The loop nest of a convolution: tasks, then out-channel tiles, rows, pixel tiles, and the reduction in registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import tirx

from lvc.backends.tvm.kernels.fused import Fused
from lvc.backends.tvm.kernels.nest import UNROLLED, Expr, Stmt, allocate, grid, load, loop, scratch, tasks
from lvc.backends.tvm.kernels.padding import copy_padded_rows
from lvc.backends.tvm.kernels.register_tile import Accumulators, Run, cut, cut_scalars, each_tile
from lvc.backends.tvm.vector import Vector

if TYPE_CHECKING:
    from lvc.backends.tvm.kernels.conv2d import Conv2d, Knobs

Read = Callable[[Expr, Expr, Expr, Expr], Expr]  # block, row, column, lane: an element of the padded data


@dataclass(frozen=True)
class Nest:
    """What the loops of one convolution need to know."""

    problem: Conv2d
    vector: Vector
    knobs: Knobs
    fused: Fused

    @cached_property
    def channel_tiles(self) -> tuple[Run, ...]:
        """How the blocks of the result's channels are cut."""
        return cut(self.problem.out_blocks, self.knobs.vectors)

    def pixel_tiles(self, vectors: int) -> tuple[Run, ...]:
        """How a row (of a flat problem: the image) is cut, for channel tiles of so many vectors."""
        p, tile = self.problem, (self.knobs.vectors, self.knobs.pixels)
        return cut_scalars(vectors, tile, p.line, p.depth, self.vector)

    def build(self) -> Stmt:
        """The whole nest."""
        return tasks((self.problem.batch, self.knobs.row_parts, self.knobs.channel_parts), self._task)

    def _task(self, image: Expr, part: Expr, chunk: Expr) -> Stmt:
        if not self.problem.is_padded:
            return self._channels(image, part, chunk, self._read_data(image))
        p, data = self.problem, self.fused.operands[0]
        first = part * self._rows * p.stride[0]
        rows, columns = p.window(self._rows, 0), p.window(p.out_width, 1)
        padded = scratch([p.in_blocks, rows, columns, p.lanes], "padded")

        def read(channel: Expr, row: Expr, column: Expr, lane: Expr) -> Expr:
            return load(padded, [channel, row - first, column, lane])

        copy = copy_padded_rows(padded, data, image, first - p.padding[0], p.padding[1])
        return allocate([padded], copy, self._channels(image, part, chunk, read))

    def _read_data(self, image: Expr) -> Read:
        data = self.fused.operands[0]
        if self.problem.in_block:
            return lambda channel, row, column, lane: load(data, [image, channel, row, column, lane])
        return lambda channel, row, column, _: load(data, [image, channel, row, column])

    @cached_property
    def _rows(self) -> int:
        return -(-self.problem.out_height // self.knobs.row_parts)

    def _channels(self, image: Expr, part: Expr, chunk: Expr, read: Read) -> Stmt:
        def tile(first: Expr, vectors: int) -> Stmt:
            return self._lines(image, part, first, vectors, read)

        return each_tile(self.channel_tiles, tile, chunk, self.knobs.channel_parts)

    def _lines(self, image: Expr, part: Expr, channel: Expr, vectors: int, read: Read) -> Stmt:
        p, pixel_tiles = self.problem, self.pixel_tiles(vectors)

        def tile(row: Expr, column: Expr, pixels: int) -> Stmt:
            return self._tile((image, channel, row, column), vectors, pixels, read)

        if p.is_flat:
            return each_tile(pixel_tiles, lambda column, pixels: tile(0, column, pixels), part, self.knobs.row_parts)

        def line(row: Expr) -> Stmt:
            return each_tile(pixel_tiles, lambda column, pixels: tile(row, column, pixels))

        first, count = part * self._rows, self._rows
        if self._rows * self.knobs.row_parts != p.out_height:
            count = tirx.max(tirx.min(self._rows, p.out_height - first), 0)
        return loop(count, line, name="row", start=first)

    def _tile(self, place: tuple[Expr, ...], vectors: int, pixels: int, read: Read) -> Stmt:
        image, channel, row, column = place
        p = self.problem
        sums = Accumulators.make(vectors, pixels, p.out_block)

        def finish(vector: int, pixel: int) -> Stmt:
            at = p.pixel(row, column + pixel)
            return self.fused.finish([image, channel + vector, *at, 0], sums.at(vector, pixel))

        return allocate(sums.buffers, sums.clear(), self._reduce(place, sums, read), sums.each(finish))

    def _reduce(self, place: tuple[Expr, ...], sums: Accumulators, read: Read) -> Stmt:
        _, channel, row, column = place
        p, weight = self.problem, self.fused.operands[1]
        start = p.first_block(channel)

        def step(block: Expr, ky: Expr, kx: Expr, lane: Expr) -> Stmt:
            def scalar(pixel: int) -> Expr:
                y = row * p.stride[0] + ky * p.dilation[0]
                x = (column + pixel) * p.stride[1] + kx * p.dilation[1]
                return read(start + block, y, x, lane)

            def vector(number: int) -> Expr:
                return load(weight, [channel + number, block, ky, kx, lane, 0], sums.lanes)

            return sums.add_products(vector, scalar)

        if p.in_block:
            return grid((p.span, *p.kernel), lambda *i: loop(p.lanes, lambda lane: step(*i, lane), UNROLLED, "lane"))
        return grid((p.span, p.kernel[0]), lambda *i: loop(p.kernel[1], lambda x: step(*i, x, 0), UNROLLED, "kx"))
