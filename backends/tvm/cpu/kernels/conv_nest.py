"""The loop nest of convolutions: tasks, then out-channel tiles, rows, pixel tiles, and the reduction in registers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.conv_geometry import Geometry
from lvc.backends.tvm.cpu.kernels.padding import copy_padded_rows
from lvc.backends.tvm.cpu.kernels.paired_rows import COPY_RATE, PairedImage
from lvc.backends.tvm.cpu.kernels.parts import Work
from lvc.backends.tvm.cpu.kernels.phases import Phase, each_phase
from lvc.backends.tvm.cpu.kernels.prefetch import prefetch, prefetch_pays
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators, each_tile, tile_count
from lvc.backends.tvm.cpu.kernels.row_registers import WORDS, Scalar, by_neighbours, by_rows, takes_rows
from lvc.backends.tvm.cpu.kernels.saturation import SaturationMask
from lvc.backends.tvm.cpu.kernels.space import Space, tiles
from lvc.backends.tvm.cpu.kernels.strips import Patch
from lvc.backends.tvm.cpu.kernels.taps import Taps
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS, TileCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    grid,
    load,
    loop,
    scratch,
    splat,
    store,
    tasks,
    unrolled,
    zeros,
)

MOST_DEPTH_PARTS = 32
MOST_TAPS = 8
LEAST_LANES = 4  # of a register, that are worth a tile of their own
LEAST_STEPS = 4  # in a turn of a reduction with one tap, where fences keep LLVM from unrolling

Place = tuple[Expr, Expr]  # row, column
Read = Callable[..., Expr]  # block, row, column, number in the block, how many: words of the padded data


@dataclass(frozen=True)
class Knobs:
    """What may be tuned. A register tile is ``vectors`` out-channel blocks by ``pixels``; the rows (of a flat problem:
    the pixels) of an image and its out-channel tiles are split into so many parts, each pair of parts a task; the
    reduction is done in ``depth_parts``, one after the other."""

    vectors: int
    pixels: int
    row_parts: int
    channel_parts: int
    depth_parts: int = 1


@cache
def _tile(g: Geometry, vector: Vector) -> tuple[TileCost, tuple[int, int], float]:
    """The register tile with the fewest cycles by count, those of how it is done, and how many an image takes."""
    costs = [TileCost(vector, g.depth, parts, g.rows, g.channels.operand) for parts in _depth_parts(g)]
    heights = [height for height in HEIGHTS if height <= g.channels.result.longest]
    choices = [(cost, (height, cost.best_scalars(height, g.line))) for cost in costs for height in heights]
    cost, tile = min(choices, key=lambda choice: _line_cycles(g, *choice))
    return cost, tile, _image_cycles(g, cost, tile)


def _line_cycles(g: Geometry, cost: TileCost, tile: tuple[int, int]) -> float:
    """Cycles of a row of pixels by count, with a register tile."""
    patches = g.channels.result.patches
    return sum(times * cost.plane((blocks, g.line), tile) for blocks, times in patches.items())


def _image_cycles(g: Geometry, cost: TileCost, tile: tuple[int, int]) -> float:
    """Cycles of an image by count, with a register tile."""
    rows = 1 if g.flat_width is not None else g.rows
    return _line_cycles(g, cost, tile) * rows * len(g.phases)


def cycles(geometry: Geometry, vector: Vector) -> float:
    """Cycles of an image by count, with those of its copy, to compare operands by."""
    return _tile(geometry, vector)[2] + geometry.bytes / COPY_RATE * geometry.is_copied


def call_cycles(geometry: Geometry, vector: Vector) -> float:
    """Cycles of all images by count, with weights that come from memory, to compare algorithms by. Many turns for each
    weight, or a prefetch, hide the time in which it comes as long as there is work."""
    fetch = _weight_bytes(geometry) / vector.machine.memory_rate
    return vector.machine.fetching(geometry.batch * _tile(geometry, vector)[2], fetch)


def _weight_bytes(g: Geometry) -> int:
    return 4 * g.channels.out_blocks * g.channels.out_block * g.depth


@cache
def choose_knobs(geometry: Geometry, vector: Vector) -> Knobs:
    """The register tile with the fewest cycles by count, and the tasks that fetch the least."""
    cost, tile, _ = _tile(geometry, vector)
    return _knobs(geometry, cost, tile)


def _knobs(g: Geometry, cost: TileCost, tile: tuple[int, int]) -> Knobs:
    """The knobs with a register tile: the tasks that fetch the least."""
    channels, flat, rows = g.channels, g.flat_width is not None, g.phases[0][0]
    work = Work(
        cycles=_image_cycles(g, cost, tile),
        lines=tile_count(cost.cut(g.line, tile[1])) if flat and not g.is_copied else g.rows,
        tiles=channels.result.tiles(tile[0]),
        data=g.bytes,
        weights=4 * channels.out_blocks * channels.out_block * g.depth,
        margin=0 if flat else (g.margins(0, 1)[1] - rows.stride) / rows.stride,
        is_copied=g.is_copied,
        machine=cost.vector.machine,
    )
    return Knobs(*tile, *work.split(g.batch), cost.parts)


def space(geometry: Geometry, vector: Vector) -> Space:
    """Every register tile that fits, with every way to do the reduction in parts."""
    g, plane = geometry, (geometry.channels.result.longest, geometry.line)
    costs = {parts: TileCost(vector, g.depth, parts, g.rows, g.channels.operand) for parts in _depth_parts(g)}
    weights = _weight_bytes(g) / vector.machine.memory_rate
    return Space(
        ("vectors", "pixels", "depth_parts"),
        tuple((*tile, parts) for parts, cost in costs.items() for tile in tiles(cost, HEIGHTS, plane)),
        lambda point: _knobs(g, costs[point[2]], (point[0], point[1])),
        lambda point: g.batch * _image_cycles(g, costs[point[2]], (point[0], point[1])) + weights,
    )


def is_narrow(channels: Channels, vector: Vector) -> bool:
    """Whether tiles of shared blocks have fewer lanes than a register, for which processors do no more and some do
    less."""
    isa, operand = vector.isa, channels.operand
    can_be = operand.elements == 1 or (operand.name in isa.dots and isa.narrows)
    return channels.result.share >= LEAST_LANES and can_be and not isa.fenced


def _depth_parts(g: Geometry) -> list[int]:
    """Parts into which the reduction may be split."""
    most = 1 if g.flat_width is not None else MOST_DEPTH_PARTS
    return [parts for parts in range(1, most + 1) if g.channels.span % parts == 0]


@dataclass(frozen=True)
class ConvNest:
    """The loops of one convolution. ``saturation`` ``[out blocks, steps]``, the steps in the order of the weights,
    is not 0 where the operand's usual step could saturate."""

    geometry: Geometry
    vector: Vector
    knobs: Knobs
    fused: Fused
    saturation: Buffer | None = None

    def build(self) -> Stmt:
        """The whole nest."""
        nest = tasks((self.geometry.batch, self.knobs.row_parts, self.knobs.channel_parts), self._task)
        return self.geometry.channels.operand.around(nest, self.vector)

    @cached_property
    def _rows(self) -> int:
        return -(-self.geometry.rows // self.knobs.row_parts)

    def _task(self, image: Expr, part: Expr, chunk: Expr) -> Stmt:
        g, data = self.geometry, self.fused.operands[0]
        if not g.is_copied:
            return self._channels(image, part, chunk, partial(g.channels.read, data, image))
        (top, rows), (left, _), operand = g.margins(0, self._rows), g.margins(1, 1), g.channels.operand
        sizes = (g.phases[0][0].size, g.phases[0][1].size)
        if g.flat_width is None:
            top = part * (self._rows * g.phases[0][0].stride) + top
        shape = [g.channels.in_blocks, rows, g.columns.count, g.channels.lanes]
        padded = scratch(shape, "padded", operand.element)

        def read(unit: Expr, row: Expr, column: Expr, word: Expr, words: int = 1) -> Expr:
            channel, word = g.channels.place(unit, word, g.channels.words)
            place = [channel, row - top, g.columns.of(column - left), word]
            return operand.load_words(padded, place, words) if operand.rows == 1 else operand.load_rows(padded, place)

        if operand.neighbours > 1:
            copy = PairedImage(padded, data, image, (top, left), sizes, g.columns, operand).fill(g.shift)
        else:
            copy = copy_padded_rows(padded, data, image, (top, left), operand)
        return allocate([padded], copy, self._channels(image, part, chunk, read))

    def _channels(self, image: Expr, part: Expr, chunk: Expr, read: Read) -> Stmt:
        def lines(patch: Patch) -> Stmt:
            return each_phase(self.geometry.phases, lambda phase: self._lines(phase, (image, part), patch, read))

        knobs, channels = self.knobs, self.geometry.channels
        narrow = is_narrow(channels, self.vector)
        return channels.result.each_patch(knobs.vectors, narrow, lines, (chunk, knobs.channel_parts))

    def _lines(self, phase: Phase, outer: tuple[Expr, ...], patch: Patch, read: Read) -> Stmt:
        image, part = outer
        parts, operand, vectors = self.knobs.depth_parts, self.geometry.channels.operand, patch.vectors

        def whole(row: Expr, column: Expr, pixels: int) -> Stmt:
            sums = self._sums(patch, pixels)
            products = self._reduce(phase, (patch, row, column), sums, read, 0)
            write = sums.each(lambda v, s: finish(row, column + s, v, sums.total(v, s)), pixels)
            return allocate(sums.memory, sums.clear(), products, *sums.regroup(), write)

        def finish(row: Expr, column: Expr, vector: int, sums: Buffer, *at: Expr) -> Stmt:
            return patch.write(self.fused, image, vector, self.geometry.pixel(phase, row, column), sums, *at)

        if parts == 1:
            return self._each_tile(phase, part, vectors, whole)
        lanes, first = patch.lanes, part * self._rows
        partial = scratch([self._rows, phase[1].outputs, vectors, lanes], "partial", operand.sums)

        def add(depth: Expr) -> Callable[[Expr, Expr, int], Stmt]:
            def tile(row: Expr, column: Expr, pixels: int) -> Stmt:
                sums = self._sums(patch, pixels)
                products = self._reduce(phase, (patch, row, column), sums, read, depth)

                def at(vector: int, pixel: int) -> list[Expr]:
                    return [row - first, column + pixel, vector, 0]

                def fetch(v: int, s: int) -> Stmt:
                    return store(sums.total(v, s), load(partial, at(v, s), lanes), [0], lanes)

                def keep(v: int, s: int) -> Stmt:
                    return store(partial, load(sums.total(v, s), [0], lanes), at(v, s), lanes)

                is_cleared = pixels < sums.scalars or sums.wide
                first_sums = [*([sums.clear()] if is_cleared else []), sums.each(fetch, pixels)]
                added = [*sums.regroup(), products, *sums.regroup()]
                return allocate(sums.memory, *first_sums, *added, sums.each(keep, pixels))

            return tile

        def last(row: Expr, column: Expr, pixels: int) -> Stmt:
            pairs = [(v, s) for s in range(pixels) for v in range(vectors)]
            return block(*(finish(row, column + s, v, partial, row - first, column + s, v) for v, s in pairs))

        clear = grid(partial.shape[:3], lambda *i: store(partial, zeros(lanes, operand.sums), [*i, 0], lanes))
        products = loop(parts, lambda depth: self._each_tile(phase, part, vectors, add(depth)), name="depth")
        return allocate([partial], clear, products, self._each_tile(phase, part, vectors, last))

    def _sums(self, patch: Patch, pixels: int) -> Accumulators:
        return self.geometry.channels.operand.accumulators(patch.vectors, pixels, patch.lanes)

    def _each_tile(self, phase: Phase, part: Expr, vectors: int, body: Callable[[Expr, Expr, int], Stmt]) -> Stmt:
        """Run ``body(row, first column, pixels)`` for every register tile of one part of the rows."""
        shape = (self.knobs.vectors, self.knobs.pixels)
        g = self.geometry
        cost = TileCost(self.vector, g.depth, self.knobs.depth_parts, g.rows, g.channels.operand)
        runs = cost.cut_scalars(vectors, shape, phase[1].outputs)
        if self.geometry.flat_width is not None:
            return each_tile(runs, lambda column, pixels: body(0, column, pixels), part, self.knobs.row_parts)

        def line(row: Expr) -> Stmt:
            return each_tile(runs, lambda column, pixels: body(row, column, pixels))

        first, count = part * self._rows, self._rows
        if self._rows * self.knobs.row_parts != phase[0].outputs:
            count = tirx.max(tirx.min(self._rows, phase[0].outputs - first), 0)
        return loop(count, line, name="row", start=first)

    def _passes(self, phase: Phase, pixels: int) -> int:
        """How often a task goes through the weights of a tile of so many pixels."""
        lines = 1 if self.geometry.flat_width is not None else self._rows
        parts = self.knobs.row_parts if self.geometry.flat_width is not None else 1
        return lines * -(-phase[1].outputs // (pixels * parts))

    @property
    def _written_taps(self) -> int:
        """Taps of a row that stand in the code one by one: cores in order wait for the addresses."""
        operand = self.geometry.channels.operand
        return MOST_TAPS if operand.neighbours > operand.rows else 1

    def _reduce(
        self, phase: Phase, place: tuple[Patch, Expr, Expr], sums: Accumulators, read: Read, part: Expr
    ) -> Stmt:
        """Add one part of the reduction to the sums of a tile."""
        patch, row, column = place
        channel = patch.block
        channels, weight, (rows, columns) = self.geometry.channels, self.fused.operands[1], phase
        start, span = channels.first_unit(patch.group), channels.span // self.knobs.depth_parts
        taken = math.gcd(channels.words, channels.operand.words_per_step)
        kernel, steps = [int(size) for size in weight.shape[2:4]], channels.words // taken
        mask = SaturationMask.of(self.saturation, channel, sums.vectors)
        next_channel, next_depth = (0, span) if self.knobs.depth_parts > 1 else (sums.vectors, 0)
        prefetches = prefetch_pays(self._passes(phase, sums.scalars), self.vector)

        def ahead(number: int, depth: Expr, tap: Place, word: Expr) -> Stmt:
            return prefetch(weight, [channel + number + next_channel, depth + next_depth, *tap, word, 0])

        def step(turn: Expr, tap: Place, first: Expr, is_masked: bool = False, held: Scalar | None = None) -> Stmt:
            ky, kx = tap
            depth = part * span + turn
            tap = (ky * rows.tap[1] + rows.tap[0], kx * columns.tap[1] + columns.tap[0])
            words = [first * taken + i for i in range(taken)]

            def scalar(pixel: int, word: Expr) -> Expr:
                place = rows.position(row, ky), columns.position(column + pixel, kx)
                return splat(read(start + depth, *place, word), sums.lanes)

            def vector(number: int, word: Expr) -> Expr:
                return load(weight, [channel + number, depth, *tap, word, patch.lane], sums.lanes)

            def rows_of(pixel: int) -> Expr:
                return read(start + depth, rows.position(row, ky), columns.position(column + pixel, kx), 0)

            def factors(v: int, s: int) -> list[tuple[Expr, Expr]]:
                if held:
                    return [(vector(v, first), splat(held(s), sums.lanes))]
                if sums.rows > 1:
                    pair, half = divmod(s, sums.rows)
                    return [(vector(v, words[half]), rows_of(pair * sums.rows))]
                return [(vector(v, word), scalar(s, word)) for word in words]

            if not (mask and is_masked):
                fetches = [ahead(v, depth, tap, word) for v in range(sums.vectors) for word in words if prefetches]
                return block(*fetches, channels.operand.step(self.vector, sums, factors))
            place = ((depth * kernel[0] + tap[0]) * kernel[1] + tap[1]) * steps + first
            return channels.operand.step(self.vector, sums, factors, mask.any(place))

        # what lies outside the image may add nothing; of two taps in a step one can be inside
        is_whole = self.geometry.shift > 0 or not channels.operand.is_zero_at_edges
        taps = Taps(phase, (row, column), sums, is_whole, self._written_taps).each

        if not rows.taps * columns.taps:
            return tirx.Evaluate(0)

        def rows_of_block(block: Expr, tap: Place) -> Stmt:
            depth, line = start + part * span + block, rows.position(row, tap[0])

            def words_of(pixel: int, first: int) -> Expr:
                return read(depth, line, columns.position(column + pixel, tap[1]), first, WORDS)

            def of_word(number: int, held: Scalar) -> Stmt:
                return step(block, tap, number, held=held)

            return by_rows(channels.words, sums, channels.operand, words_of, of_word)

        def neighbours_of_block(block: Expr, tap: Place, word: Expr) -> Stmt:
            def words_of(pixel: int, count: int) -> Expr:
                place = rows.position(row, tap[0]), columns.position(column + pixel, tap[1])
                return read(start + part * span + block, *place, word, count)

            return by_neighbours(sums, channels.operand, words_of, lambda held: step(block, tap, word, held=held))

        def of_block(block: Expr, is_masked: bool = False) -> Stmt:
            if channels.operand.neighbours > sums.rows:
                return taps(lambda *tap: neighbours_of_block(block, tap, 0), steps)
            if channels.words == sums.lanes and takes_rows(channels.operand, self.vector):
                return taps(lambda *tap: rows_of_block(block, tap), steps)
            return taps(lambda y, x: unrolled(steps, lambda turn: step(block, (y, x), turn, is_masked)), steps)

        if not channels.in_block:
            return sums.carried(taps(lambda y, x: unrolled(span, lambda block: step(block, (y, x), 0)), span))
        if not mask:
            together = max(1, LEAST_STEPS // steps) if self.vector.isa.fenced and kernel == [1, 1] else 1

            def blocks(first: Expr, count: int) -> Stmt:
                return unrolled(count, lambda block: of_block(first + block), together)

            return sums.in_parts(span, rows.taps * columns.taps * steps, blocks)
        each = kernel[0] * kernel[1] * steps
        return mask.each_turn(span, each, part * span * each, of_block)
