"""Products by the tensor cores: each warp of a block sums a part of the block's tile in matrices of 16 rows and 8
columns, which ``mma.sync`` multiplies from words of four bytes; ``ldmatrix`` loads them from shared memory.

Both factors lie there by rows of `WORDS` words, results along them: rows of the first are pixels or rows of a matrix,
those of the second are columns of the result. From one to the next are `STRIDE` words, so that eight of them begin in
different banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm import tirx

from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.factors import Pace
from lvc.backends.tvm.gpu.kernels.matrix_factors import MatrixFactor, Tf32
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.staging import copied_ahead, staged
from lvc.backends.tvm.gpu.kernels.tile import (
    BLOCK_SHARED,
    FETCHED_BYTES,
    REGISTERS,
    SHARED_BYTES,
    Tile,
)
from lvc.backends.tvm.gpu.kernels.warp_columns import (
    COLUMNS,
    DEPTH,
    ROWS,
    STRIDE,
    VECTOR,
    WORD_BYTES,
    WORDS,
    Columns,
    lanes,
    vector_place,
)
from lvc.backends.tvm.gpu.launch import WARP, copy, local, matrices, multiply_matrices, shared, to_tf32
from lvc.backends.tvm.nest import UNROLLED, Buffer, Expr, Stmt, allocate, block, load, loop, store, zeros

MOST_STAGES = 8  # steps: a block that is alone on a multiprocessor has nothing else to hide latency


@dataclass(frozen=True)
class WarpTile(Tile):
    """``rows`` by ``columns`` of a block, ``height`` by ``width`` of a warp; terms are words."""

    @property
    def step(self) -> int:
        return WORDS

    @property
    def warps(self) -> int:
        return self.rows * self.columns // (self.height * self.width)

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def stage_bytes(self) -> int:
        """Shared memory of one step."""
        return WORD_BYTES * STRIDE * (self.rows + self.columns)

    def stages(self, gpu: Gpu) -> int:
        """Steps that shared memory has room for."""
        return min(MOST_STAGES, BLOCK_SHARED // self.stage_bytes) if gpu.capability.copies_ahead else 2

    def step_cycles(self, gpu: Gpu, factor: Pace, busy: float) -> float:
        """See `Tile`; a warp of each partition keeps its tensor core busy."""
        multiplied = self.rows * self.columns * WORDS * factor.elements / factor.rate(gpu)
        row = WORDS * WORD_BYTES
        passed = row * (self.warps * (self.height + self.width) + self.rows + self.columns) / SHARED_BYTES
        return max(multiplied, passed, row * (self.rows + self.columns) / FETCHED_BYTES)

    def asked_for(self, gpu: Gpu) -> float:
        return WORD_BYTES * WORDS * (self.rows + self.columns) / self.threads * (self.stages(gpu) - 1)

    def resident(self, gpu: Gpu) -> int:
        of, sums = gpu.capability, self.height * self.width // WARP
        fragments = VECTOR * self.height // ROWS + 2 * self.width // COLUMNS
        staged_words = (self.rows + self.columns) * WORDS // self.threads
        registers = REGISTERS + sums + fragments + staged_words
        shared_bytes = self.stages(gpu) * self.stage_bytes
        limits = of.threads // self.threads, of.registers // (registers * self.threads), of.shared // shared_bytes
        return max(1, min(of.blocks, *limits))


WARP_TILES = tuple(
    WarpTile(*shape)
    for shape in (
        (128, 128, 64, 32),
        (128, 64, 32, 32),
        (64, 128, 32, 32),
        (64, 64, 32, 32),
        (128, 32, 32, 32),
        (64, 32, 32, 16),
        (32, 64, 16, 32),
        (32, 32, 16, 16),
    )
)
SMALLEST_WARP_TILE = WARP_TILES[-1]


@dataclass(frozen=True)
class WarpProduct:
    """What a block does, ``steps`` of `WORDS` words each.

    ``fetch_row`` takes ``(turn, step, number, row, into)`` and loads the so-manyth ``together`` elements that a step
    has of a row of the tile; ``prepare_row`` takes ``(turn, row)`` before the first step.
    ``columns`` is the second factor. ``finish`` takes ``(row, column, sums, place)`` and writes two columns of a row.
    Neighbouring threads take neighbouring rows, or, where ``is_transposed``, neighbouring vectors of a row. Bytes of
    the factors have the ``zeros``: what they are taken from, which is done to the sums at the end.
    """

    gpu: Gpu
    tile: WarpTile
    factor: MatrixFactor
    steps: int
    thread: Expr
    together: int
    fetch_row: Callable[[int, Expr, Expr, Expr, Sink], Stmt]
    prepare_row: Callable[[int, Expr], Stmt] | None
    columns: Columns
    finish: Callable[[Expr, Expr, Buffer, list[Any]], Stmt]
    is_transposed: bool = False
    zeros: tuple[int, int] = (0, 0)

    def body(self) -> Stmt:
        """All of it."""
        t, f = self.tile, self.factor
        stages = t.stages(self.gpu)
        first = shared([stages, t.rows, STRIDE * f.elements], "first", f.data)
        second = self.columns.memory(stages)
        sums = local([t.height // ROWS, t.width // COLUMNS, 4], "sums", f.dtype)
        prepare = self.prepare_row
        prepared = [prepare(turn, self.place(turn)[1]) for turn in range(self.row_turns)] if prepare else []
        beside = _Zeros.of(self) if any(self.zeros) else None
        made = [sums, *(beside.sums if beside else ())]
        return allocate(
            [first, second, *made, *(beside.ones if beside else ())],
            *prepared,
            *(store(each, zeros(1, f.dtype), at) for each in made for at in _places(each)),
            *(beside.prepared() if beside else ()),
            self.multiplied(first, second, sums, beside),
            *(beside.corrected(sums) if beside else ()),
            self.write(sums),
        )

    def multiplied(self, first: Buffer, second: Buffer, sums: Buffer, beside: _Zeros | None) -> Stmt:
        """All steps."""
        f, stages = self.factor, self.tile.stages(self.gpu)

        def multiply(stage: Expr) -> Stmt:
            return self.multiply(stage, first, second, sums, beside)

        if self.gpu.capability.copies_ahead:
            return copied_ahead(
                self.steps, stages, lambda step, stage: self.copy_ahead(step, stage, first, second), multiply
            )
        rows = local([self.row_turns, self.together], "rows", f.data)
        columns = self.columns.registers()
        return allocate(
            [rows, columns],
            staged(
                self.steps,
                lambda step: self.fetch(step, rows, columns),
                lambda half: self.stash(half, rows, columns, first, second),
                multiply,
            ),
        )

    @property
    def row_turns(self) -> int:
        """How often a thread loads elements of rows in a step."""
        return turns(self.tile, self.factor, self.together)

    def place(self, turn: int) -> tuple[Expr, Expr]:
        """The number of the elements that a thread loads, and their row."""
        item, each = self.thread + turn * self.tile.threads, WORDS * self.factor.elements // self.together
        if self.is_transposed and each == WORDS // VECTOR:
            return vector_place(item)
        return (
            tirx.floormod(tirx.floordiv(item, 8), each),
            tirx.floordiv(item, 8 * each) * 8 + tirx.floormod(item, 8),
        )

    def copy_ahead(self, step: Expr, stage: Expr, first: Buffer, second: Buffer) -> Stmt:
        """Have what a step needs copied into shared memory."""
        statements = []
        for turn in range(self.row_turns):
            number, row = self.place(turn)
            into = Sink(first, [stage, row, number * self.together], self.together, is_ahead=True)
            statements.append(self.fetch_row(turn, step, number, row, into))
        return block(*statements, *self.columns.copy_ahead(step, stage, second))

    def fetch(self, step: Expr, rows: Buffer, columns: Buffer) -> Stmt:
        """Load what a step needs into registers."""
        statements = []
        for turn in range(self.row_turns):
            into = Sink(rows, [tirx.const(turn, "int32"), tirx.const(0, "int32")], self.together)
            statements.append(self.fetch_row(turn, step, *self.place(turn), into))
        return block(*statements, *self.columns.fetch(step, columns))

    def stash(self, half: Expr, rows: Buffer, columns: Buffer, first: Buffer, second: Buffer) -> Stmt:
        """Put what was loaded into shared memory."""
        statements = []
        for turn in range(self.row_turns):
            number, row = self.place(turn)
            statements.append(copy(first, [half, row, number * self.together], rows, [turn, 0], self.together))
        return block(*statements, *self.columns.stash(half, columns, second))

    def multiply(self, half: Expr, first: Buffer, second: Buffer, sums: Buffer, beside: _Zeros | None) -> Stmt:
        """Add the products of one step."""
        t, f, (down, across) = self.tile, self.factor, self.own
        high, wide = t.height // ROWS, t.width // COLUMNS
        left, right = local([high, 4], "left", "uint32"), local([wide, 2], "right", "uint32")
        lane, eighth = lanes(self.thread)

        def step(k: Expr) -> Stmt:
            loads = []
            for i in range(high):
                word = k * DEPTH + tirx.floordiv(eighth, 2) * VECTOR
                place = [half, down + i * ROWS + tirx.floormod(lane, ROWS), word * f.elements]
                loads.append(matrices(left, [i, 0], first, place))
                loads += [to_tf32(left, [i, word]) for word in range(VECTOR)] if isinstance(f, Tf32) else []
            for j in range(0, wide, 2):
                row = self.columns.row(half, k, across + j * COLUMNS)
                loads.append(matrices(right, [j, 0], second, row, are_turned=self.columns.is_turned))
            products = [
                multiply_matrices(f.data, (sums, [i, j, 0]), (left, [i, 0]), (right, [j, 0]))
                for i, j in product(range(high), range(wide))
            ]
            return block(*loads, *products, *(beside.added(left, right) if beside else ()))

        return allocate([left, right], loop(WORDS // DEPTH, step, UNROLLED, "k"))

    @property
    def own(self) -> tuple[Expr, Expr]:
        """The first row and column of a warp's part of the tile."""
        warp, wide = tirx.floordiv(self.thread, WARP), self.tile.columns // self.tile.width
        return tirx.floordiv(warp, wide) * self.tile.height, tirx.floormod(warp, wide) * self.tile.width

    def write(self, sums: Buffer) -> Stmt:
        """Turn the sums into the result: a thread has two columns of two rows of each matrix."""
        (down, across), lane = self.own, tirx.floormod(self.thread, WARP)
        row, column = tirx.floordiv(lane, 4), tirx.floormod(lane, 4) * 2
        places = product(range(self.tile.height // ROWS), range(2), range(self.tile.width // COLUMNS))
        return block(
            *(
                self.finish(down + (i * ROWS + lower * 8) + row, across + j * COLUMNS + column, sums, [i, j, lower * 2])
                for i, lower, j in places
            )
        )


@dataclass(frozen=True)
class _Zeros:
    """Sums of the bytes of each row and of each column, as products with ones. ``sums`` and ``ones`` are there for
    those factors alone whose other one has a zero point."""

    product: WarpProduct
    of_rows: Buffer
    of_columns: Buffer
    ones: tuple[Buffer, ...]

    @classmethod
    def of(cls, product: WarpProduct) -> _Zeros:
        t, dtype = product.tile, product.factor.dtype
        return cls(
            product,
            local([t.height // ROWS, 4], "of_rows", dtype),
            local([t.width // COLUMNS, 4], "of_columns", dtype),
            (local([4], "ones", "uint32"),),
        )

    @property
    def sums(self) -> list[Buffer]:
        first, second = self.product.zeros
        return [*([self.of_rows] if second else []), *([self.of_columns] if first else [])]

    def prepared(self) -> list[Stmt]:
        """Ones in all bytes."""
        return [store(self.ones[0], tirx.const(0x01010101, "uint32"), [place]) for place in range(4)]

    def added(self, left: Buffer, right: Buffer) -> list[Stmt]:
        """Add what a step has."""
        (first, second), (ones,), kind = self.product.zeros, self.ones, self.product.factor.data
        rows = range(int(self.of_rows.shape[0])) if second else ()
        columns = range(int(self.of_columns.shape[0])) if first else ()
        return [
            *(multiply_matrices(kind, (self.of_rows, [i, 0]), (left, [i, 0]), (ones, [0])) for i in rows),
            *(multiply_matrices(kind, (self.of_columns, [j, 0]), (ones, [0]), (right, [j, 0])) for j in columns),
        ]

    def corrected(self, sums: Buffer) -> list[Stmt]:
        """The sums of products of what is left of the factors without their zero points. What stood for terms that
        there are not is a zero point in both."""
        p, (first, second) = self.product, self.product.zeros
        terms = p.steps * WORDS * p.factor.elements

        def value(at: Sequence[int]) -> Expr:
            i, j, element = at
            total = load(sums, at) + tirx.const(terms * first * second, "int32")
            if second:
                total = total - load(self.of_rows, [i, element]) * second
            return total - load(self.of_columns, [j, element]) * first if first else total

        return [store(sums, value(at), at) for at in _places(sums)]


def _places(buffer: Buffer) -> Iterator[tuple[int, ...]]:
    """All places of a buffer."""
    return product(*(range(int(extent)) for extent in buffer.shape))


def turns(tile: WarpTile, factor: MatrixFactor, together: int) -> int:
    """How often each thread loads so many elements of a row, until a step has all."""
    return tile.rows * WORDS * factor.elements // together // tile.threads
