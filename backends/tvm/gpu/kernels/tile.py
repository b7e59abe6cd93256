"""Products by tiles: a block of threads sums a tile of the result in registers, from parts of both factors that lie in
shared memory twice, so that one is read while the next is stored.

Rows are pixels or rows of a matrix, columns are channels of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, TypeVar

from tvm import tirx

from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.factors import SINGLE, Factor, Pace
from lvc.backends.tvm.gpu.kernels.staging import staged
from lvc.backends.tvm.gpu.launch import QUAD, WARP, copy, local, shared
from lvc.backends.tvm.nest import UNROLLED, Buffer, Expr, Stmt, allocate, block, load, loop, store, zeros
from lvc.backends.tvm.program import ITEM_BYTES

STEP = 8  # terms of the sums in shared memory at once
ROW_PADDING = 4  # floats behind a row of the first factor, so that columns of it are in different banks
REGISTERS = 48  # of a thread, beside its sums and what it multiplies
LATENCY = 700  # cycles that a block waits for a part of the factors, and what little it has to do meanwhile hides
LAUNCH = 3000  # cycles that another launch takes
BUSY_WARPS = 8  # that keep a multiprocessor's arithmetic busy
BYTES_PER_CYCLE = 8  # that a multiprocessor's share of the second-level cache gives


@dataclass(frozen=True)
class Size:
    """Of products: rows, columns and terms of each of so many groups."""

    rows: int
    columns: int
    depth: int
    groups: int = 1

    @property
    def results(self) -> int:
        return self.rows * self.columns * self.groups


@dataclass(frozen=True)
class Tile:
    """``rows`` by ``columns`` of a block, ``height`` by ``width`` of a thread. Sums are cut into ``parts``, each by
    blocks of its own; another launch adds them up."""

    rows: int
    columns: int
    height: int
    width: int
    parts: int = 1

    STEP: ClassVar[int] = STEP

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows * self.columns // (self.height * self.width)

    def fits(self) -> bool:
        """Whether its parts of the factors are loaded by whole turns of all threads."""
        return self.threads >= WARP and self.rows * STEP // QUAD % self.threads == 0

    def blocks(self, rows: int, columns: int) -> int:
        """Tiles of a result."""
        return -(-rows // self.rows) * -(-columns // self.columns)

    def steps(self, depth: int) -> int:
        """Steps of one part of a sum of so many terms."""
        return -(-depth // (self.STEP * self.parts))

    def cycles(self, gpu: Gpu, factor: Pace, size: Size) -> float:
        """An estimate of a product's time on a GPU."""
        blocks = self.blocks(size.rows, size.columns) * size.groups * self.parts
        multiplied = self.launch_cycles(gpu, factor, blocks, self.steps(size.depth), self.resident(gpu))
        if self.parts == 1:
            return multiplied
        parts = _FLOAT_BYTES * size.results * self.parts / gpu.bytes_per_cycle  # are written, and read again
        return max(multiplied, parts) + LAUNCH + max(LATENCY, parts * (1 + 1 / self.parts))

    def launch_cycles(self, gpu: Gpu, factor: Pace, blocks: int, steps: int, resident: int) -> float:
        """An estimate for ``blocks`` of so many ``steps``, of which a multiprocessor has room for ``resident``."""
        resident = min(resident, -(-blocks // gpu.multiprocessors))
        share = self.height * self.width / (self.height * self.width + self.height + self.width)
        busy = min(1.0, resident * self.threads / (BUSY_WARPS * WARP))
        arithmetic = self.rows * self.columns * STEP * steps / (factor.rate(gpu) / factor.elements * share * busy)
        fetched = 4 * (self.rows + self.columns) * STEP * steps / fetched_bytes(gpu)
        each = max(arithmetic, fetched, LATENCY * steps / resident)
        return -(-blocks // gpu.multiprocessors) * each

    def asked_for(self, gpu: Gpu) -> float:
        """Bytes of the factors that each thread waits for at once."""
        return 4 * STEP * (self.rows + self.columns) / self.threads

    def resident(self, gpu: Gpu) -> int:
        """Blocks that a multiprocessor holds at once."""
        of, registers = gpu.capability, REGISTERS + self.height * self.width + self.height + self.width
        shared_bytes = 2 * 4 * STEP * (self.rows + ROW_PADDING + self.columns)
        limits = of.threads // self.threads, of.registers // (registers * self.threads), of.shared // shared_bytes
        return max(1, min(of.blocks, *limits))


def fetched_bytes(gpu: Gpu) -> float:
    """What a multiprocessor gets from the second-level cache in a cycle."""
    return BYTES_PER_CYCLE * gpu.capability.lanes / 16


T = TypeVar("T", bound=Tile)
_FLOAT_BYTES = ITEM_BYTES["float32"]
SMALLEST = Tile(32, 32, 4, 4)
_SHAPES = ((128, 128, 8, 8), (128, 64, 8, 8), (64, 64, 8, 4), (64, 32, 4, 4), (32, 64, 4, 4), (32, 32, 4, 4))
TILES = tuple(tile for shape in _SHAPES if (tile := Tile(*shape)).fits())
_PARTS = range(1, 17)
LEAST_STEPS = 4  # of a part of a sum


def in_parts(tiles: Iterable[T], depth: int) -> Iterator[T]:
    """Tiles of sums of so many terms, whole ones and in parts."""
    for tile, parts in product(tiles, _PARTS):
        if parts == 1 or -(-depth // tile.STEP) >= parts * LEAST_STEPS:
            yield replace(tile, parts=parts)


def choose_tile(gpu: Gpu, factor: Pace, size: Size, tiles: Iterable[T]) -> T:
    """The tile with the least time by estimate, with the parts that go with it; of equal ones the smallest."""

    def cost(tile: T) -> tuple[float, int]:
        return tile.cycles(gpu, factor, size), tile.rows * tile.columns

    return min(in_parts(tiles, size.depth), key=cost)


@dataclass(frozen=True)
class TileProduct:
    """What a block does, ``steps`` of eight terms each.

    ``fetch_row`` takes ``(turn, step, quad, row, into)`` and loads four terms of a row of the tile, at ``[turn, 0]``;
    ``prepare_row`` takes ``(turn, row)`` before the first step. ``weight`` is the second factor, ``weight_index`` the
    place of ``(term, column)`` in it, from which four columns follow. ``finish`` takes ``(row, column, sums, place)``
    and writes four columns of a row. Where ``is_transposed``, neighbouring threads take neighbouring terms of a row and
    neighbouring columns of the result; else neighbouring rows.
    """

    tile: Tile
    steps: int
    thread: Expr
    fetch_row: Callable[[int, Expr, Expr, Expr, Buffer], Stmt]
    prepare_row: Callable[[int, Expr], Stmt] | None
    weight: Buffer
    weight_index: Callable[[Expr, Expr], list[Expr]]
    finish: Callable[[Expr, Expr, Buffer, list[Any]], Stmt]
    is_transposed: bool = False
    factor: Factor = SINGLE

    def body(self) -> Stmt:
        """All of it."""
        t, dtype = self.tile, self.factor.dtype
        first, second = (
            shared([2, STEP, t.rows + ROW_PADDING], "first", dtype),
            shared([2, STEP, t.columns], "second", dtype),
        )
        rows, columns = local([self.row_turns, QUAD], "rows", dtype), local([self.column_turns, QUAD], "columns", dtype)
        sums = local([t.height, t.width], "sums", dtype)
        prepare = self.prepare_row
        prepared = [prepare(number, self.place(number)[1]) for number in range(self.row_turns)] if prepare else []
        return allocate(
            [first, second, sums, rows, columns],
            *prepared,
            loop(t.height, lambda i: loop(t.width, lambda j: store(sums, zeros(1, dtype), [i, j]), UNROLLED), UNROLLED),
            staged(
                self.steps,
                lambda step: self.fetch(step, rows, columns),
                lambda half: self.stash(half, rows, columns, first, second),
                lambda half: self.multiply(half, first, second, sums),
            ),
            self.write(sums),
        )

    @property
    def row_turns(self) -> int:
        """Vectors of the first factor that a thread loads in a step."""
        return self.tile.rows * STEP // QUAD // self.tile.threads

    @property
    def column_turns(self) -> int:
        """Vectors of the second factor that a thread loads in a step."""
        return -(-self.tile.columns * STEP // QUAD // self.tile.threads)

    def place(self, turn: int) -> tuple[Expr, Expr]:
        """Which four terms of which row a thread loads."""
        item = self.thread + turn * self.tile.threads
        if self.is_transposed:
            return tirx.floormod(item, STEP // QUAD), tirx.floordiv(item, STEP // QUAD)
        return tirx.floordiv(item, self.tile.rows), tirx.floormod(item, self.tile.rows)

    def column_place(self, turn: int) -> tuple[Expr, Expr]:
        """Which four columns of which term a thread loads."""
        quads = self.tile.columns // QUAD
        item = self.thread + turn * self.tile.threads
        return tirx.floordiv(item, quads), tirx.floormod(item, quads) * QUAD

    def of_columns(self, turn: int, body: Stmt) -> Stmt:
        """A statement of those threads that load columns in a turn."""
        items = self.tile.columns * STEP // QUAD - turn * self.tile.threads
        return body if items >= self.tile.threads else tirx.IfThenElse(self.thread < items, body, None)

    def fetch(self, step: Expr, rows: Buffer, columns: Buffer) -> Stmt:
        """Load what a step needs into registers."""
        statements = [self.fetch_row(turn, step, *self.place(turn), rows) for turn in range(self.row_turns)]
        for turn in range(self.column_turns):
            term, column = self.column_place(turn)
            index = self.weight_index(step * STEP + term, column)
            statements.append(self.of_columns(turn, copy(columns, [turn, 0], self.weight, index, QUAD)))
        return block(*statements)

    def stash(self, half: Expr, rows: Buffer, columns: Buffer, first: Buffer, second: Buffer) -> Stmt:
        """Put what was loaded into shared memory."""
        statements = []
        for turn, lane in product(range(self.row_turns), range(QUAD)):
            quad, row = self.place(turn)
            statements.append(store(first, load(rows, [turn, lane]), [half, quad * QUAD + lane, row]))
        for turn in range(self.column_turns):
            term, column = self.column_place(turn)
            statements.append(self.of_columns(turn, copy(second, [half, term, column], columns, [turn, 0], QUAD)))
        return block(*statements)

    def multiply(self, half: Expr, first: Buffer, second: Buffer, sums: Buffer) -> Stmt:
        """Add the products of one step."""
        t = self.tile
        left, right = (
            local([size], name, self.factor.dtype) for size, name in ((t.height, "left"), (t.width, "right"))
        )

        def add(i: Expr, j: Expr) -> Stmt:
            return store(sums, self.factor.product(load(left, [i]), load(right, [j]), load(sums, [i, j])), [i, j])

        def term(k: Expr) -> Stmt:
            reads = [copy(left, [i], first, [half, k, self.row(i)], QUAD) for i in range(0, t.height, QUAD)]
            reads += [copy(right, [j], second, [half, k, self.column(j)], QUAD) for j in range(0, t.width, QUAD)]
            added = loop(t.height, lambda i: loop(t.width, lambda j: add(i, j), UNROLLED, "j"), UNROLLED, "i")
            return block(*reads, added)

        return allocate([left, right], loop(STEP, term, UNROLLED, "k"))

    @property
    def own(self) -> tuple[Expr, Expr]:
        """The place of a thread's rows and columns among those of the tile; results lie by columns, or by rows where
        data does."""
        down, across = self.tile.rows // self.tile.height, self.tile.columns // self.tile.width
        if self.is_transposed:
            return tirx.floordiv(self.thread, across), tirx.floormod(self.thread, across)
        return tirx.floormod(self.thread, down), tirx.floordiv(self.thread, down)

    def row(self, number: int) -> Expr:
        """The row of the tile that is a thread's so-manyth: four neighbours, then four in the next part of the tile."""
        return self.own[0] * QUAD + self._shifted(number, self.tile.rows // self.tile.height)

    def column(self, number: int) -> Expr:
        """The column of the tile that is a thread's so-manyth."""
        return self.own[1] * QUAD + self._shifted(number, self.tile.columns // self.tile.width)

    def _shifted(self, number: int, threads: int) -> int:
        return number // QUAD * threads * QUAD + number % QUAD

    def write(self, sums: Buffer) -> Stmt:
        """Turn the sums into the result."""
        t = self.tile
        places = product(range(t.height), range(0, t.width, QUAD))
        return block(*(self.finish(self.row(i), self.column(j), sums, [i, j]) for i, j in places))


def padded_columns(tile: Tile, columns: int) -> int:
    """Columns of stored weights, of whole tiles."""
    return -(-columns // tile.columns) * tile.columns


def padded_terms(tile: Tile, depth: int) -> int:
    """Terms of stored weights, of whole steps and parts."""
    return tile.steps(depth) * tile.parts * tile.STEP
