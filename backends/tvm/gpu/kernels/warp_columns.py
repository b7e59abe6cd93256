"""How the second factor of products by tensor cores comes into shared memory, and from there into words of a warp.

Tensor cores want words of neighbouring terms of a column. Stored weights lie so. Of a matrix that is made as the model
runs, neighbours in memory are columns: of elements of two bytes ``ldmatrix`` transposes it, bytes are transposed four
by four in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Protocol

from tvm import tirx

from lvc.backends.tvm.gpu.kernels.matrix_factors import SIGN
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.launch import QUAD, WARP, copy, copy_ahead, local, shared
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, load, store

WORDS = 16  # of a row in shared memory at once: two steps of the instruction
STRIDE = WORDS + 4
WORD_BYTES = 4
VECTOR = 4  # words of a vector
ROWS, COLUMNS, DEPTH = 16, 8, 8  # of a product of matrices; the depth in words
HALVES = 2  # elements of two bytes in a word

FetchColumns = Callable[[Expr, Expr, Sink], Stmt]
"""Loads neighbouring columns of a term of the second factor: ``(term, column, into)``, as many as go into the sink."""


class Columns(Protocol):
    """The second factor of a tile."""

    def memory(self, stages: int) -> Buffer:
        """Shared memory for so many steps."""
        ...

    def registers(self) -> Buffer:
        """What a thread loads of a step."""
        ...

    def copy_ahead(self, step: Expr, stage: Expr, memory: Buffer) -> list[Stmt]:
        """Have a step copied into shared memory."""
        ...

    def fetch(self, step: Expr, held: Buffer) -> list[Stmt]:
        """Load a step into registers."""
        ...

    def stash(self, half: Expr, held: Buffer, memory: Buffer) -> list[Stmt]:
        """Put what was loaded into shared memory."""
        ...

    @property
    def is_turned(self) -> bool:
        """Whether ``ldmatrix`` has to transpose it."""
        ...

    def row(self, stage: Expr, k: Expr, first: Expr) -> list[Expr]:
        """Where the row of a matrix lies that a thread names to ``ldmatrix``: of two matrices of columns, each of two
        of words, from the column ``first`` and the so-manyth `DEPTH` words of a step on."""
        ...


@dataclass(frozen=True)
class _Shared:
    """Those of so many ``columns`` of a tile, loaded by so many ``threads``; words are of so many ``elements``."""

    columns: int
    threads: int
    thread: Expr
    elements: int

    is_turned: ClassVar[bool] = False

    def each(self, items: int, one: Callable[[int], Stmt]) -> list[Stmt]:
        """What those threads do that have one of so many items to load, in every turn."""
        return [self.some(items - turn * self.threads, one(turn)) for turn in self.turns(items)]

    def some(self, left: int, body: Stmt) -> Stmt:
        """A statement of those threads that have one of the items that are left."""
        return body if left >= self.threads else tirx.IfThenElse(self.thread < left, body, None)

    def turns(self, items: int) -> range:
        return range(-(-items // self.threads))

    @property
    def vectors(self) -> int:
        """Of the columns of a step."""
        return self.columns * WORDS // VECTOR

    @property
    def vector(self) -> int:
        """Elements of a vector."""
        return VECTOR * self.elements

    def row(self, stage: Expr, k: Expr, first: Expr) -> list[Expr]:
        """Of columns whose terms are neighbours in shared memory."""
        lane, eighth = lanes(self.thread)
        word = k * DEPTH + tirx.floormod(eighth, 2) * VECTOR
        column = first + tirx.floordiv(eighth, 2) * COLUMNS + tirx.floormod(lane, 8)
        return [stage, column, word * self.elements]


@dataclass(frozen=True)
class StoredColumns(_Shared):
    """Stored weights: ``index`` is the place of ``(step, column)`` in ``weight``, where elements of a step begin."""

    weight: Buffer
    index: Callable[[Expr, Expr], list[Expr]]

    def memory(self, stages: int) -> Buffer:
        return shared([stages, self.columns, STRIDE * self.elements], "second", str(self.weight.dtype))

    def registers(self) -> Buffer:
        return local([len(self.turns(self.vectors)), self.vector], "columns", str(self.weight.dtype))

    def copy_ahead(self, step: Expr, stage: Expr, memory: Buffer) -> list[Stmt]:
        def one(turn: int) -> Stmt:
            place, index = self.place(turn, step)
            return copy_ahead(memory, [stage, *place], self.weight, index, self.vector)

        return self.each(self.vectors, one)

    def fetch(self, step: Expr, held: Buffer) -> list[Stmt]:
        return self.each(
            self.vectors, lambda turn: copy(held, [turn, 0], self.weight, self.place(turn, step)[1], self.vector)
        )

    def stash(self, half: Expr, held: Buffer, memory: Buffer) -> list[Stmt]:
        return self.each(
            self.vectors, lambda turn: copy(memory, [half, *self.place(turn, half)[0]], held, [turn, 0], self.vector)
        )

    def place(self, turn: int, step: Expr) -> tuple[list[Expr], list[Expr]]:
        """The vector of a column that a thread loads: its place in a step, and that in the weights."""
        number, column = vector_place(self.thread + turn * self.threads)
        return [column, number * self.vector], [*self.index(step, column), number * self.vector]


@dataclass(frozen=True)
class ShortColumns(_Shared):
    """A matrix of elements of two bytes of a ``dtype`` whose columns are neighbours. It lies so in shared memory too:
    from one term to the next is a vector more than its columns, so that eight terms begin in different banks."""

    dtype: str
    read: FetchColumns

    is_turned: ClassVar[bool] = True

    def memory(self, stages: int) -> Buffer:
        return shared([stages, WORDS * HALVES, self.columns + self.vector], "second", self.dtype)

    def registers(self) -> Buffer:
        return local([len(self.turns(self.vectors)), self.vector], "columns", self.dtype)

    def copy_ahead(self, step: Expr, stage: Expr, memory: Buffer) -> list[Stmt]:
        def one(turn: int) -> Stmt:
            term, column = self.place(turn)
            into = Sink(memory, [stage, term, column], self.vector, is_ahead=True)
            return self.read(step * (WORDS * HALVES) + term, column, into)

        return self.each(self.vectors, one)

    def fetch(self, step: Expr, held: Buffer) -> list[Stmt]:
        def one(turn: int) -> Stmt:
            term, column = self.place(turn)
            return self.read(step * (WORDS * HALVES) + term, column, Sink(held, [turn, 0], self.vector))

        return self.each(self.vectors, one)

    def stash(self, half: Expr, held: Buffer, memory: Buffer) -> list[Stmt]:
        return self.each(
            self.vectors, lambda turn: copy(memory, [half, *self.place(turn)], held, [turn, 0], self.vector)
        )

    def place(self, turn: int) -> tuple[Expr, Expr]:
        """The term, and the first column, of the vector that a thread loads."""
        item, each = self.thread + turn * self.threads, self.columns // self.vector
        if each == WORDS // VECTOR:
            number, term = vector_place(item)
            return term, number * self.vector
        return tirx.floordiv(item, each), tirx.floormod(item, each) * self.vector

    def row(self, stage: Expr, k: Expr, first: Expr) -> list[Expr]:
        lane, eighth = lanes(self.thread)
        term = k * (DEPTH * HALVES) + tirx.floormod(eighth, 2) * COLUMNS + tirx.floormod(lane, 8)
        return [stage, term, first + tirx.floordiv(eighth, 2) * COLUMNS]


@dataclass(frozen=True)
class ByteColumns(_Shared):
    """A matrix of bytes of a ``dtype`` whose columns are neighbours. A thread loads four columns of four terms, makes
    them signed, and stores four words of terms."""

    dtype: str
    read: FetchColumns

    def memory(self, stages: int) -> Buffer:
        return shared([stages, self.columns, STRIDE * self.elements], "second", "int8")

    def registers(self) -> Buffer:
        return local([len(self.turns(self.quads)) * QUAD, QUAD], "columns", "int8")

    @property
    def quads(self) -> int:
        """Of the columns and terms of a step."""
        return self.columns // QUAD * WORDS

    def copy_ahead(self, step: Expr, stage: Expr, memory: Buffer) -> list[Stmt]:
        held = self.registers()
        return [allocate([held], *self.fetch(step, held), *self.stash(stage, held, memory))]

    def fetch(self, step: Expr, held: Buffer) -> list[Stmt]:
        def one(turn: int) -> Stmt:
            found = local([QUAD, QUAD], "found", self.dtype)
            word, column = self.place(turn)
            term = (step * WORDS + word) * self.elements
            return allocate(
                [found],
                *(self.read(term + k, column, Sink(found, [k, 0], QUAD)) for k in range(QUAD)),
                *(
                    store(held, self.signed(load(found, [k, j])), [turn * QUAD + j, k])
                    for j, k in product(range(QUAD), repeat=2)
                ),
            )

        return self.each(self.quads, one)

    def stash(self, half: Expr, held: Buffer, memory: Buffer) -> list[Stmt]:
        def one(turn: int) -> Stmt:
            word, column = self.place(turn)
            return tirx.SeqStmt(
                [
                    copy(memory, [half, column + j, word * self.elements], held, [turn * QUAD + j, 0], QUAD)
                    for j in range(QUAD)
                ]
            )

        return self.each(self.quads, one)

    def signed(self, value: Expr) -> Expr:
        """A byte as a signed one: 128 less if it is not."""
        if self.dtype == "int8":
            return value
        return tirx.Cast("int8", value ^ tirx.const(SIGN, self.dtype))

    def place(self, turn: int) -> tuple[Expr, Expr]:
        """The word of a step and the first of four columns that a thread loads; words of two neighbouring blocks of
        columns are in different banks."""
        item = self.thread + turn * self.threads
        return tirx.floormod(item, WORDS), tirx.floordiv(item, WORDS) * QUAD


def lanes(thread: Expr) -> tuple[Expr, Expr]:
    """The place of a thread in its warp, and which eight of it it is one of."""
    lane = tirx.floormod(thread, WARP)
    return lane, tirx.floordiv(lane, 8)


def vector_place(item: Expr) -> tuple[Expr, Expr]:
    """Which vector of which row of `WORDS` words: eight threads that store together take vectors of rows that are four
    apart, whose banks are different."""
    high, low = tirx.floordiv(item, 32), tirx.floormod(tirx.floordiv(item, 8), 4)
    return tirx.floormod(item, 4), high * 8 + tirx.floormod(tirx.floordiv(item, 4), 2) * 4 + low
