"""Products by tiles: a block of threads sums a tile of the result in registers, from parts of both factors that lie in
shared memory for several steps, so that some are on their way while one is multiplied.

Terms come in blocks of four: the first factor lies in shared memory by blocks, rows, terms, the second by terms and
columns. Where a tile is small, several slices of a block's threads each take their share of the terms of a step, and
add up what they have when all steps are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm import tirx

from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.factors import SINGLE, Factor
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.staging import copied_ahead, staged
from lvc.backends.tvm.gpu.kernels.tile import Tile, row_kinds, row_turns
from lvc.backends.tvm.gpu.launch import QUAD, barrier, copy, local, shared
from lvc.backends.tvm.nest import SERIAL, UNROLLED, Buffer, Expr, Stmt, allocate, block, load, loop, store, zeros

MOST_UNROLLED = 512  # multiply-adds of a thread in a row


@dataclass(frozen=True)
class TileProduct:
    """What a block does, ``steps`` of the tile's terms each.

    ``fetch_row`` takes ``(turn, step, number, row, into)`` and loads the so-manyth ``together`` terms that a step has
    of a row of the tile; ``prepare_row`` takes ``(turn, row)`` before the first step. ``fetch_columns`` takes ``(term,
    column, into)`` and loads four columns of the second factor. ``finish`` takes ``(row, column, sums, place)`` and
    writes four columns of a row. Neighbouring threads take neighbouring rows, or, where
    ``is_transposed``, neighbouring terms of a row and neighbouring columns of the result.
    """

    gpu: Gpu
    tile: Tile
    steps: int
    thread: Expr
    together: int
    fetch_row: Callable[[int, Expr, Expr, Expr, Sink], Stmt]
    prepare_row: Callable[[int, Expr], Stmt] | None
    fetch_columns: Callable[[Expr, Expr, Sink], Stmt]
    finish: Callable[[Expr, Expr, Buffer, list[Any]], Stmt]
    is_transposed: bool = False
    factor: Factor = SINGLE

    def body(self) -> Stmt:
        """All of it."""
        t, dtype = self.tile, self.factor.dtype
        memory = shared([t.stages(self.gpu) * t.stage_words], "memory", dtype)
        sums = local([t.height, t.width], "sums", dtype)
        prepare = self.prepare_row
        kinds = row_kinds(t, self.together)
        prepared = [prepare(turn, self.place(turn)[1]) for turn in range(kinds)] if prepare else []
        return allocate(
            [memory, sums],
            *prepared,
            loop(t.height, lambda i: loop(t.width, lambda j: store(sums, zeros(1, dtype), [i, j]), UNROLLED), UNROLLED),
            self.multiplied(memory, sums),
            self.write(sums) if t.slices == 1 else self.added(sums, memory),
        )

    def multiplied(self, memory: Buffer, sums: Buffer) -> Stmt:
        """All steps."""
        stages, dtype = self.tile.stages(self.gpu), self.factor.dtype

        def multiply(stage: Expr) -> Stmt:
            return self.multiply(stage, memory, sums)

        if self.gpu.capability.copies_ahead:
            return copied_ahead(self.steps, stages, lambda step, stage: self.copy_ahead(step, stage, memory), multiply)
        rows = local([row_turns(self.tile, self.together), self.together], "rows", dtype)
        columns = local([self.column_turns, QUAD], "columns", dtype)
        return allocate(
            [rows, columns],
            staged(
                self.steps,
                lambda step: self.fetch(step, rows, columns),
                lambda half: self.stash(half, rows, columns, memory),
                multiply,
            ),
        )

    @property
    def column_turns(self) -> int:
        """Vectors of the second factor that a thread loads in a step."""
        return -(-self.tile.columns * self.tile.step // QUAD // self.tile.threads)

    def first(self, stage: Expr, quad: Expr, row: Expr, lane: Expr) -> list[Expr]:
        """Where a term of a row lies in shared memory."""
        t = self.tile
        return [((stage * (t.step // QUAD) + quad) * t.stride + row) * QUAD + lane]

    def second(self, stage: Expr, term: Expr, column: Expr) -> list[Expr]:
        """Where a column of a term lies in shared memory, behind the first factor."""
        t = self.tile
        return [(stage * t.step + term) * t.columns + column + t.stages(self.gpu) * t.step * t.stride]

    def place(self, turn: int) -> tuple[Expr, Expr]:
        """The number of the terms that a thread loads, and their row."""
        t, lanes = self.tile, QUAD // self.together
        item, each = self.thread + turn * t.threads, t.step // self.together
        if self.is_transposed:
            return tirx.floormod(item, each), tirx.floordiv(item, each)
        around = lanes * t.rows
        if t.threads % around == 0:
            quad, item = tirx.floordiv(self.thread, around) + turn * (t.threads // around), self.thread
        else:
            quad = tirx.floordiv(item, around)
        row = tirx.floormod(tirx.floordiv(item, lanes), t.rows)
        return quad * lanes + tirx.floormod(item, lanes), row

    def column_place(self, turn: int) -> tuple[Expr, Expr]:
        """Which four columns of which term a thread loads."""
        quads = self.tile.columns // QUAD
        item = self.thread + turn * self.tile.threads
        return tirx.floordiv(item, quads), tirx.floormod(item, quads) * QUAD

    def of_turn(self, turn: int, items: int, body: Stmt) -> Stmt:
        """A statement of those threads that have one of so many items to load in a turn."""
        left = items - turn * self.tile.threads
        return body if left >= self.tile.threads else tirx.IfThenElse(self.thread < left, body, None)

    def of_rows(self, turn: int, body: Stmt) -> Stmt:
        return self.of_turn(turn, self.tile.rows * self.tile.step // self.together, body)

    def of_columns(self, turn: int, body: Stmt) -> Stmt:
        return self.of_turn(turn, self.tile.columns * self.tile.step // QUAD, body)

    def row_place(self, turn: int, stage: Expr) -> list[Expr]:
        """Where what a thread loads of a row lies in shared memory."""
        number, row = self.place(turn)
        if self.together == QUAD:
            return self.first(stage, number, row, 0)
        return self.first(stage, tirx.floordiv(number, QUAD), row, tirx.floormod(number, QUAD))

    def copy_ahead(self, step: Expr, stage: Expr, memory: Buffer) -> Stmt:
        """Have what a step needs copied into shared memory."""
        statements = []
        for turn in range(row_turns(self.tile, self.together)):
            into = Sink(memory, self.row_place(turn, stage), self.together, is_ahead=True)
            statements.append(self.of_rows(turn, self.fetch_row(turn, step, *self.place(turn), into)))
        for turn in range(self.column_turns):
            term, column = self.column_place(turn)
            into = Sink(memory, self.second(stage, term, column), QUAD, is_ahead=True)
            fetched = self.fetch_columns(step * self.tile.step + term, column, into)
            statements.append(self.of_columns(turn, fetched))
        return block(*statements)

    def fetch(self, step: Expr, rows: Buffer, columns: Buffer) -> Stmt:
        """Load what a step needs into registers."""
        statements = []
        for turn in range(row_turns(self.tile, self.together)):
            into = Sink(rows, [tirx.const(turn, "int32"), tirx.const(0, "int32")], self.together)
            statements.append(self.of_rows(turn, self.fetch_row(turn, step, *self.place(turn), into)))
        for turn in range(self.column_turns):
            term, column = self.column_place(turn)
            into = Sink(columns, [tirx.const(turn, "int32"), tirx.const(0, "int32")], QUAD)
            fetched = self.fetch_columns(step * self.tile.step + term, column, into)
            statements.append(self.of_columns(turn, fetched))
        return block(*statements)

    def stash(self, half: Expr, rows: Buffer, columns: Buffer, memory: Buffer) -> Stmt:
        """Put what was loaded into shared memory."""
        statements = []
        for turn in range(row_turns(self.tile, self.together)):
            stored = copy(memory, self.row_place(turn, half), rows, [turn, 0], self.together)
            statements.append(self.of_rows(turn, stored))
        for turn in range(self.column_turns):
            stored = copy(memory, self.second(half, *self.column_place(turn)), columns, [turn, 0], QUAD)
            statements.append(self.of_columns(turn, stored))
        return block(*statements)

    def multiply(self, stage: Expr, memory: Buffer, sums: Buffer) -> Stmt:
        """Add the products of a slice's share of one step."""
        t, dtype = self.tile, self.factor.dtype
        left, right = local([t.height, QUAD], "left", dtype), local([t.width], "right", dtype)

        def term(quad: Expr, k: int) -> Stmt:
            def add(i: Expr, j: Expr) -> Stmt:
                total = self.factor.product(load(left, [i, k]), load(right, [j]), load(sums, [i, j]))
                return store(sums, total, [i, j])

            reads = [
                copy(right, [j], memory, self.second(stage, quad * QUAD + k, self.column(self.own[1], j // QUAD)), QUAD)
                for j in range(0, t.width, QUAD)
            ]
            return block(*reads, loop(t.height, lambda i: loop(t.width, lambda j: add(i, j), UNROLLED, "j"), UNROLLED))

        def four(number: Expr) -> Stmt:
            quad = self.slice * t.quads + number
            reads = (
                copy(left, [i, 0], memory, self.first(stage, quad, self.row(self.own[0], i), 0), QUAD)
                for i in range(t.height)
            )
            return block(*reads, *(term(quad, k) for k in range(QUAD)))

        is_short = t.quads * QUAD * t.height * t.width <= MOST_UNROLLED
        return allocate([left, right], loop(t.quads, four, UNROLLED if is_short else SERIAL, "quad"))

    @property
    def slice(self) -> Expr:
        """The slice of a thread."""
        return tirx.const(0, "int32") if self.tile.slices == 1 else tirx.floordiv(self.thread, self.tile.team)

    @property
    def own(self) -> tuple[Expr, Expr]:
        """The place of a thread among those of its slice."""
        return self.among(self.thread if self.tile.slices == 1 else tirx.floormod(self.thread, self.tile.team))

    def among(self, member: Expr) -> tuple[Expr, Expr]:
        """The place of a member of a slice; results lie by columns, or by rows where data does."""
        if self.is_transposed:
            return tirx.floordiv(member, self.tile.across), tirx.floormod(member, self.tile.across)
        return tirx.floormod(member, self.tile.down), tirx.floordiv(member, self.tile.down)

    def row(self, own: Expr, number: Expr) -> Expr:
        """The row of the tile that is a thread's so-manyth."""
        return own + number * self.tile.down

    def column(self, own: Expr, number: Expr) -> Expr:
        """The first of four columns of the tile that are a thread's so-manyth."""
        return (own + number * self.tile.across) * QUAD

    def write(self, sums: Buffer) -> Stmt:
        """Turn the sums into the result."""
        t, (down, across) = self.tile, self.own
        places = product(range(t.height), range(t.width // QUAD))
        return block(*(self.finish(self.row(down, i), self.column(across, j), sums, [i, j * QUAD]) for i, j in places))

    def added(self, sums: Buffer, memory: Buffer) -> Stmt:
        """Add up the sums of all slices by way of shared memory, a few rows of each thread at a time."""
        t, most = self.tile, self.tile.together(self.gpu)
        rounds = [(first, min(most, t.height - first)) for first in range(0, t.height, most)]
        return block(*(part for one in rounds for part in self._round(sums, memory, *one)))

    def _round(self, sums: Buffer, memory: Buffer, first: int, count: int) -> Iterator[Stmt]:
        t, wide = self.tile, self.tile.width // QUAD
        vectors, member = count * wide * t.team, tirx.floormod(self.thread, t.team)
        yield barrier()  # nobody reads any more what is overwritten now
        for i, j in product(range(count), range(wide)):
            place = [(self.slice * vectors + (i * wide + j) * t.team + member) * QUAD]
            yield copy(memory, place, sums, [first + i, j * QUAD], QUAD)
        yield barrier()
        for turn in range(-(-vectors // t.threads)):
            vector = self.thread + turn * t.threads
            yield self.of_turn(turn, vectors, self._total(memory, first, vectors, vector))

    def _total(self, memory: Buffer, first: int, vectors: int, vector: Expr) -> Stmt:
        """Four columns of a row by one thread."""
        t, dtype = self.tile, self.factor.dtype
        held, total = local([t.slices, QUAD], "held", dtype), local([1, QUAD], "total", dtype)
        down, across = self.among(tirx.floormod(vector, t.team))
        number, wide = tirx.floordiv(vector, t.team), t.width // QUAD
        row = self.row(down, first + tirx.floordiv(number, wide))
        column = self.column(across, tirx.floormod(number, wide) if wide > 1 else tirx.const(0, "int32"))

        def add(part: Expr) -> Stmt:
            return block(
                *(store(total, load(total, [0, k]) + load(held, [part, k]), [0, k]) for k in range(QUAD)),
            )

        return allocate(
            [held, total],
            *(copy(held, [part, 0], memory, [(vector + part * vectors) * QUAD], QUAD) for part in range(t.slices)),
            *(store(total, load(held, [0, k]), [0, k]) for k in range(QUAD)),
            loop(t.slices - 1, lambda part: add(part + 1), UNROLLED, "part"),
            self.finish(row, column, total, [0, 0]),
        )
