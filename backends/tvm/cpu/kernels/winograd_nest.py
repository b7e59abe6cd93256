"""The loop nest of a convolution by minimal filtering: transform a strip of tiles, multiply at each point, transform
back.

Both transforms go along one axis and then along the other, over whole rows of tiles, so that what neighbouring tiles
share is done once, and padding and ragged edges cost a column of zeros and a shorter loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.fence import fenced, fenced_turn
from lvc.backends.tvm.cpu.kernels.point_transform import Registers
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators, cut, each_tile, tile_count
from lvc.backends.tvm.cpu.kernels.row_registers import WORDS, Scalar, by_rows, takes_rows
from lvc.backends.tvm.cpu.kernels.strips import Patch
from lvc.backends.tvm.cpu.kernels.tile_cost import TileCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.nest import (
    PARALLEL,
    SERIAL,
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    grid,
    load,
    loop,
    scratch,
    store,
    tasks,
    unrolled,
    zeros,
)
from lvc.backends.tvm.short_floats import as_float32
from lvc.compiler.ir.cook_toom import CookToom

if TYPE_CHECKING:
    from lvc.backends.tvm.cpu.kernels.winograd import Winograd

SKEW = 2  # vectors between two points in a buffer: else all points of a tile fall into one set of the cache


@dataclass(frozen=True)
class Knobs:
    """What may be tuned. A register tile is ``vectors`` out-channel blocks by ``tiles``. The rows of tiles are cut into
    strips of ``rows``, the out-channel blocks into chunks of ``chunk``, whose products are kept until they are
    transformed back. A task is a strip; or, where strips are done ``together``, one after the other, the transform of
    one block of the data and then a chunk."""

    vectors: int
    tiles: int
    rows: int
    chunk: int
    together: bool = False


@dataclass(frozen=True)
class WinogradNest:
    """The loops of one convolution. Places in the buffers between the transforms are (point, vector, lane)."""

    problem: Winograd
    vector: Vector
    knobs: Knobs
    fused: Fused
    shared: Buffer | None = None  # where tasks that work together keep the transformed data

    def build(self) -> Stmt:
        """The whole nest."""
        strips = cut(self.problem.tiles[0], self.knobs.rows)
        extents = (self.problem.plain.batch, tile_count(strips))

        def strip(image: Expr, part: Expr) -> Stmt:
            return each_tile(strips, lambda first, rows: self._strip(image, first, rows), part, extents[1])

        nest = grid(extents, strip) if self.knobs.together else tasks(extents, strip)
        return self.problem.operand.around(nest, self.vector)

    @cached_property
    def _lanes(self) -> int:
        return self.problem.channels.out_block

    def _strip(self, image: Expr, first: Expr, rows: int) -> Stmt:
        """Some rows of tiles: transform their data, then do the chunks of the result."""
        channels, tiles = self.problem.channels, rows * self.problem.tiles[1]
        kind = PARALLEL if self.knobs.together else SERIAL
        own = scratch(data_shape(self.problem, tiles), "data", self.problem.operand.element)
        data = self.shared if self.shared is not None and self.knobs.together else own

        def chunk(channel: Expr, blocks: int) -> Stmt:
            products = scratch(_at_points(self.problem, blocks * tiles), "products")
            multiply = self._multiply(data, products, channel, (blocks, tiles))
            return allocate([products], multiply, self._to_outputs(products, (image, channel, first), (blocks, rows)))

        chunks = cut(channels.out_blocks, self.knobs.chunk, channels.result.period)
        count = tile_count(chunks)
        transform = loop(channels.in_blocks, lambda c: self._to_points(data, (image, c, first), rows), kind, "channel")
        multiply = loop(count, lambda i: each_tile(chunks, chunk, i, count), kind, "chunk")
        return allocate([own] if data is own else [], transform, multiply)

    def _to_points(self, data: Buffer, place: tuple[Expr, Expr, Expr], rows: int) -> Stmt:
        """Transform a block of channels of a strip: down its columns into ``lines``, then along those."""
        (image, channel, first), p = place, self.problem.plain
        (across, over), columns = self.problem.transforms, self.problem.tiles[1]
        top, left, *_ = p.padding
        width = (columns - 1) * over.outputs + over.points
        begin, end = min(left, width), min(left + p.width, width)
        lines = scratch([across.points, width, self._lanes], "lines")

        def clear(x: int) -> Stmt:
            return loop(across.points, lambda i: store(lines, zeros(self._lanes), [i, x, 0], self._lanes))

        def down(y: Expr, is_inside: bool) -> Stmt:
            def element(i: int, x: Expr) -> Expr:
                value = as_float32(load(self.fused.operands[0], [image, channel, y + i, x - left, 0], self._lanes))
                inside = tirx.all(y + i >= 0, y + i < p.height)
                return value if is_inside else tirx.if_then_else(inside, value, zeros(self._lanes))

            def column(x: Expr) -> Stmt:
                values = [element(i, x) for i in range(across.points)]
                return self._write_points(across, values, lambda i: (lines, [i, x, 0]))

            return loop(end - begin, column, name="column", start=begin)

        def along(row: Expr, i: Expr, t: Expr) -> Stmt:
            vector = (channel * rows + row) * columns + t
            values = [load(lines, [i, t * over.outputs + j, 0], self._lanes) for j in range(over.points)]
            return self._write_points(over, values, lambda j: (data, [i * over.points + j, vector, 0]), is_last=True)

        def line(row: Expr) -> Stmt:
            y = (first + row) * across.outputs - top
            fill = down(y, True)
            if top or (self.problem.tiles[0] - 1) * across.outputs + across.points - top > p.height:
                fill = tirx.IfThenElse(tirx.all(y >= 0, y + across.points <= p.height), fill, down(y, False))
            return block(fill, grid((across.points, columns), lambda *place: along(row, *place)))

        outside = [*range(begin), *range(end, width)]
        return allocate([lines], *map(clear, outside), loop(rows, line, name="row"))

    def _write_points(
        self,
        transform: CookToom,
        values: list[Expr],
        at: Callable[[int], tuple[Buffer, list[Expr]]],
        is_last: bool = False,
    ) -> Stmt:
        """Transform some elements; ``at`` names a buffer and the index in it for the result at each point, which is
        rounded to what is multiplied where ``is_last``."""
        registers = Registers(self._lanes)
        results = registers.to_points(transform.data, [registers.keep(value) for value in values])
        for i, result in enumerate(results):
            (buffer, index), value = at(i), result
            if is_last:
                value = self.problem.operand.rounded(self.vector, value)
            registers.statements.append(store(buffer, value, index, self._lanes))
        return fenced_turn(allocate(registers.buffers, *registers.statements), self.vector)

    def _multiply(self, data: Buffer, products: Buffer, channel: Expr, size: tuple[int, int]) -> Stmt:
        """At each point: the weights of ``size[0]`` out-channel blocks from ``channel`` on times ``size[1]`` tiles."""
        (blocks, count), shape = size, (self.knobs.vectors, self.knobs.tiles)
        channels, weight, operand = self.problem.channels, self.fused.operands[1], self.problem.operand
        cost = TileCost(self.vector, self.problem.steps, operand=operand)
        before = channel * self._lanes // channels.group[1] if channels.groups > 1 else 0

        def product(point: Expr, patch: Patch, start: Expr, sums: Accumulators) -> Stmt:
            unit = channels.first_unit(before + patch.group)

            def word(c: Expr, s: int, number: Expr, words: int = 1) -> Expr:
                c, number = channels.place(unit + c, number, channels.words)
                return operand.load_words(data, [point, c * count + start + s, number], words)

            def step(c: Expr, number: Expr, scalar: Scalar) -> Stmt:
                def vector(v: int) -> Expr:
                    return load(weight, [channel + patch.block + v, point, c, number, patch.lane], patch.lanes)

                def add(total: Expr, left: Expr, right: Expr) -> Expr:
                    return operand.add_product(self.vector, total, left, right)

                return fenced(sums.add_products(vector, scalar, add), sums, self.vector)

            def steps(c: Expr) -> Stmt:
                if takes_rows(operand, self.vector):

                    def words_of(s: int, number: int) -> Expr:
                        return word(c, s, number, WORDS)

                    return by_rows(channels.words, sums, operand, words_of, lambda *one: step(c, *one))
                return unrolled(channels.words, lambda number: step(c, number, lambda s: word(c, s, number)))

            def keep(v: int, s: int) -> Stmt:
                value, vector = load(sums.at(v, s), [0], patch.lanes), (patch.block + v) * count + start + s
                return store(products, value, [point, vector, patch.lane], patch.lanes)

            reduce = loop(channels.span, steps)
            return allocate(sums.buffers, sums.clear(), reduce, sums.each(keep))

        def line(point: Expr, patch: Patch) -> Stmt:
            def tile(start: Expr, tiles: int) -> Stmt:
                return product(point, patch, start, Accumulators.make(patch.vectors, tiles, patch.lanes))

            return each_tile(cost.cut_scalars(patch.vectors, shape, count), tile)

        def patches(point: Expr) -> Stmt:
            return channels.result.part(blocks).each_patch(shape[0], True, lambda patch: line(point, patch))

        return loop(self.problem.points, patches, name="point")

    def _to_outputs(self, products: Buffer, place: tuple[Expr, Expr, Expr], size: tuple[int, int]) -> Stmt:
        """Transform a chunk back, along its rows into ``lines`` and then down the columns, and write it out."""
        (image, channel, first), (blocks, rows), p = place, size, self.problem.plain
        (across, over), columns = self.problem.transforms, self.problem.tiles[1]
        lines = scratch([across.points, columns * over.outputs, self._lanes], "lines")

        def along(number: Expr, row: Expr, i: Expr, t: Expr) -> Stmt:
            vector, registers = (number * rows + row) * columns + t, Registers(self._lanes)
            places = [[i * over.points + j, vector, 0] for j in range(over.points)]
            values = [registers.keep(load(products, place, self._lanes)) for place in places]
            results = registers.to_outputs(over.sums, values)
            write = [store(lines, value, [i, t * over.outputs + j, 0], self._lanes) for j, value in enumerate(results)]
            return fenced_turn(allocate(registers.buffers, *registers.statements, *write), self.vector)

        def down(number: Expr, y: Expr, count: int) -> Stmt:
            def column(x: Expr) -> Stmt:
                registers = Registers(self._lanes)
                values = [registers.keep(load(lines, [i, x, 0], self._lanes)) for i in range(across.points)]
                for result in registers.to_outputs(across.sums, values)[:count]:
                    registers.keep(result)
                sums = registers.buffers[-count:]
                write = [self.fused.finish([image, channel + number, y + i, x, 0], sums[i]) for i in range(count)]
                return fenced_turn(allocate(registers.buffers, *registers.statements, *write), self.vector)

            return loop(p.out_width, column, name="column")

        def line(number: Expr, row: Expr) -> Stmt:
            tile = across.outputs
            y, rest = (first + row) * tile, p.out_height % tile
            write = down(number, y, tile)
            if rest:
                write = tirx.IfThenElse(y + tile <= p.out_height, write, down(number, y, rest))
            return block(grid((across.points, columns), lambda *at: along(number, row, *at)), write)

        return allocate([lines], grid((blocks, rows), line))


def data_shape(problem: Winograd, tiles: int) -> tuple[int, ...]:
    """The shape of the transformed data of so many tiles."""
    return _at_points(problem, problem.channels.in_blocks * tiles)


def _at_points(problem: Winograd, vectors: int) -> tuple[int, ...]:
    return (problem.points, vectors + SKEW, problem.channels.out_block)
