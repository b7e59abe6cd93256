"""What a block does for attention: the problem, and its threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from lvc.backends.tvm.attention import BEFORE, BIASED, KEY, QUERY, RESULT, VALUE
from lvc.backends.tvm.fused import Stage
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.matrix_factors import Halves
from lvc.backends.tvm.gpu.kernels.tile import COPYING, FETCHED_BYTES, ISSUED, LATENCY, REGISTERS, SHARED_BYTES
from lvc.backends.tvm.gpu.kernels.warp_columns import COLUMNS, DEPTH, HALVES, ROWS, VECTOR, lanes
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import (
    WARP,
    barrier,
    copy,
    exchange,
    local,
    matrices,
    multiply_matrices,
    shared,
    split,
    when,
)
from lvc.backends.tvm.nest import SERIAL, UNROLLED, Buffer, Expr, Stmt, allocate, block, load, loop, store
from lvc.backends.tvm.short_floats import narrow

TERMS = DEPTH * HALVES  # of a product of matrices
EIGHT = VECTOR * HALVES  # halves of a vector
MANY_KEYS, FEW_KEYS = 64, 32  # of a chunk, where rows are narrow and where they are wide
POWER = 16  # instructions for a score: its bias, the power, its part of the sum, the rounding
_LOWEST = float("-inf")


@dataclass(frozen=True)
class Attention:
    """``queries`` rows times ``keys`` columns of ``depth`` terms, softmax of rows, times ``keys`` rows of ``width``,
    for each index of the outer dimensions ``batch``. Each dimension of what is written is that of ``order``."""

    batch: tuple[int, ...]
    queries: int
    keys: int
    depth: int
    width: int
    order: tuple[int, ...]
    factor: Halves
    warps: int = 1

    @property
    def heads(self) -> int:
        return math.prod(self.batch)

    @property
    def rows(self) -> int:
        """Queries of a block."""
        return ROWS * self.warps

    @property
    def threads(self) -> int:
        return WARP * self.warps

    @property
    def deep(self) -> int:
        """Terms of scores, of whole products of matrices."""
        return -(-self.depth // TERMS) * TERMS

    @property
    def wide(self) -> int:
        """Columns of the result, of whole pairs of matrices."""
        return -(-self.width // TERMS) * TERMS

    @property
    def chunk(self) -> int:
        """Keys at a time."""
        return MANY_KEYS if max(self.deep, self.wide) <= MANY_KEYS else FEW_KEYS

    @property
    def chunks(self) -> int:
        return -(-self.keys // self.chunk)

    @property
    def blocks(self) -> int:
        return self.heads * -(-self.queries // self.rows)

    def launch_cycles(self, gpu: Gpu, blocks: int, resident: int) -> float:
        """An estimate of the time of so many blocks, of which a multiprocessor has room for ``resident``."""
        resident = min(resident, -(-blocks // gpu.multiprocessors))
        columns, scores = self.deep + self.wide, self.rows * self.chunk
        multiplied = scores * columns / self.factor.rate(gpu)
        issued = (POWER * scores + COPYING * self.chunk * columns / EIGHT) / ISSUED
        passed = 2 * self.chunk * columns * (self.warps + 1) / SHARED_BYTES
        fetched = 2 * self.chunk * columns / FETCHED_BYTES
        each = max(multiplied, issued, passed, fetched, LATENCY / resident)
        return LATENCY + -(-blocks // gpu.multiprocessors) * each * self.chunks

    def resident(self, gpu: Gpu) -> int:
        """Blocks that a multiprocessor holds at once."""
        registers = REGISTERS + (self.deep // HALVES + self.chunk + self.wide) // HALVES + self.chunk // 4
        shared_bytes = 2 * ((self.rows + self.chunk) * (self.deep + EIGHT) + self.chunk * (self.wide + EIGHT))
        of = gpu.capability
        limits = of.threads // self.threads, of.registers // (registers * self.threads), of.shared // shared_bytes
        return max(1, min(of.blocks, *limits))


@dataclass(frozen=True)
class _Rows:
    """Rows of an operand in shared memory: ``columns`` of each, of which ``real`` ones there are, a vector apart."""

    buffer: Buffer
    rows: int
    columns: int
    real: int

    @classmethod
    def of(cls, name: str, dtype: str, rows: int, columns: int, real: int) -> _Rows:
        return cls(shared([rows, columns + EIGHT], name, dtype), rows, columns, real)


@dataclass(frozen=True)
class AttentionBlock:
    """One block: rows of one head from a ``row`` on."""

    p: Attention
    stages: Mapping[str, Stage]
    head: Expr
    row: Expr
    thread: Expr

    def read(self, name: str, row: Expr, column: Expr, before: Expr = None) -> Expr:
        """An element of a stage of this head; ``before`` is that of the stage that it is made of."""
        stage = self.stages[name]
        outer = split(self.head, [int(size) for size in stage.buffer.shape[:-2]])
        read = self.stages[BEFORE[name]].buffer if name in BEFORE else None
        return stage.at([*outer, row, column], read, before)

    def body(self) -> Stmt:
        p, dtype = self.p, self.p.factor.data
        queries = _Rows.of("queries", dtype, p.rows, p.deep, p.depth)
        keys = _Rows.of("keys", dtype, p.chunk, p.deep, p.depth)
        values = _Rows.of("values", dtype, p.chunk, p.wide, p.width)
        own = local([p.deep // TERMS, 4], "own", "uint32")
        sums, largest, total = local([p.wide // COLUMNS, 4], "sums"), local([2], "largest"), local([2], "total")
        state = _State(own, sums, largest, total)

        def chunk(number: Expr) -> Stmt:
            first = number * p.chunk
            return block(
                barrier(),  # nobody reads any more what is overwritten now
                self.filled(keys, lambda row, column: self.read(KEY, column, first + row), p.keys - first),
                self.filled(values, lambda row, column: self.read(VALUE, first + row, column), p.keys - first),
                barrier(),
                self.added(state, first, keys.buffer, values.buffer),
            )

        return allocate(
            [queries.buffer, keys.buffer, values.buffer, own, sums, largest, total],
            self.filled(queries, lambda row, column: self.read(QUERY, self.row + row, column), p.queries - self.row),
            *(store(largest, tirx.const(_LOWEST, "float32"), [half]) for half in range(2)),
            *(store(total, tirx.const(0, "float32"), [half]) for half in range(2)),
            _each(sums, lambda _: tirx.const(0, "float32")),
            barrier(),
            loop(p.deep // TERMS, lambda k: matrices(own, [k, 0], queries.buffer, self.query_place(k)), UNROLLED, "k"),
            loop(p.chunks, chunk, SERIAL, "chunk"),
            *self.across(total, lambda x, y: x + y),
            self.written(sums, total),
        )

    def filled(self, rows: _Rows, element: Callable[[Expr, Expr], Expr], there: Expr) -> Stmt:
        """Fill rows, of which so many are there, by vectors where they lie so in memory; zeros beside and behind."""
        each = rows.columns // EIGHT
        vectors, zero = rows.rows * each, self.p.factor.outside()

        def one(turn: Expr) -> Stmt:
            item = turn * self.p.threads + self.thread
            row, first = _vector_place(item, each)
            is_ragged = rows.real % EIGHT != 0

            def value(lane: Expr) -> Expr:
                found = element(row, first + lane)
                return tirx.if_then_else(first + lane < rows.real, found, zero) if is_ragged else found

            inside = tirx.all(row < there, first < rows.real) if rows.real <= rows.columns - EIGHT else row < there
            made = write_lanes(EIGHT, rows.buffer, lambda lane: [row, first + lane], value)
            empty = write_lanes(EIGHT, rows.buffer, lambda lane: [row, first + lane], lambda _: zero)
            filled = tirx.IfThenElse(inside, made, empty)
            return when(True if vectors % self.p.threads == 0 else item < vectors, filled)

        return loop(-(-vectors // self.p.threads), one, UNROLLED, "turn")

    @property
    def warp_row(self) -> Expr:
        """The first row of a warp in the block."""
        return tirx.floordiv(self.thread, WARP) * ROWS

    def query_place(self, k: Expr) -> list[Expr]:
        """The row of a matrix of queries that a thread names to ``ldmatrix``."""
        lane, eighth = lanes(self.thread)
        return [self.warp_row + tirx.floormod(lane, ROWS), k * TERMS + tirx.floordiv(eighth, 2) * EIGHT]

    def added(self, state: _State, first: Expr, keys: Buffer, values: Buffer) -> Stmt:
        """Add what a chunk of keys from the ``first`` on gives."""
        p = self.p
        scores, peak = local([p.chunk // COLUMNS, 4], "scores"), local([2], "peak")
        scale, weights = local([2], "scale"), local([p.chunk // TERMS, 4], "weights", "uint32")
        return allocate(
            [scores, peak, scale, weights],
            _each(scores, lambda _: tirx.const(0, "float32")),
            self.scored(state, scores, keys),
            _each(scores, lambda at: self.biased(load(scores, at), at, first)),
            *self.softened(state, scores, peak, scale),
            loop(p.chunk // TERMS, lambda k: self.rounded(weights, scores, k), UNROLLED, "k"),
            self.mixed(state, weights, values),
        )

    def scored(self, state: _State, scores: Buffer, keys: Buffer) -> Stmt:
        """The products of a warp's queries with the keys of a chunk."""
        lane, eighth = lanes(self.thread)
        words = local([4], "words", "uint32")

        def pair(k: Expr, j: Expr) -> Stmt:
            key = j * TERMS + tirx.floordiv(eighth, 2) * COLUMNS + tirx.floormod(lane, 8)
            place = [key, k * TERMS + tirx.floormod(eighth, 2) * EIGHT]
            return block(
                matrices(words, [0], keys, place),
                *(self.multiplied(scores, j * 2 + i, (state.own, [k, 0]), (words, [2 * i])) for i in range(2)),
            )

        pairs = self.p.chunk // TERMS
        steps = loop(self.p.deep // TERMS, lambda k: loop(pairs, lambda j: pair(k, j), UNROLLED, "j"), UNROLLED, "k")
        return allocate([words], steps)

    def multiplied(self, sums: Buffer, number: Expr, left: Any, right: Any) -> Stmt:
        return multiply_matrices(self.p.factor.data, (sums, [number, 0]), left, right)

    def place(self, at: Sequence[Expr]) -> tuple[Expr, Expr]:
        """The row of the block and the column of a sum of a thread: of the so-manyth matrix its so-manyth."""
        lane, (number, element) = tirx.floormod(self.thread, WARP), at
        row = self.warp_row + tirx.floordiv(element, 2) * 8 + tirx.floordiv(lane, 4)
        return row, number * COLUMNS + tirx.floormod(lane, 4) * 2 + tirx.floormod(element, 2)

    def biased(self, score: Expr, at: Sequence[Expr], first: Expr) -> Expr:
        """A score with what is done to it; of keys that there are not, the least of all numbers."""
        p, (row, column) = self.p, self.place(at)
        row, key = self.row + row, first + column
        conditions = [key < p.keys] if p.keys % p.chunk else []
        if BIASED in self.stages:
            conditions += [row < p.queries] if p.queries % p.rows else []
            score = self.read(BIASED, row, key, score)
        lowest = tirx.const(_LOWEST, "float32")
        return tirx.if_then_else(tirx.all(*conditions), score, lowest) if conditions else score

    def softened(self, state: _State, scores: Buffer, peak: Buffer, scale: Buffer) -> Iterator[Stmt]:
        """From scores to their powers; ``scale`` becomes what the sums so far have to be multiplied by.

        A row that has no score above the least of all numbers yet is taken from zero, so that no infinity is taken from
        itself: its powers are zeros.
        """
        zero, lowest = tirx.const(0, "float32"), tirx.const(_LOWEST, "float32")
        halves = range(2)
        yield from (store(peak, load(state.largest, [half]), [half]) for half in halves)
        yield _each_of(scores, lambda at: _updated(peak, at, lambda old: tirx.max(old, load(scores, at))))
        yield from self.across(peak, tirx.max)
        for half in halves:
            largest = load(peak, [half])
            base = tirx.Select(tirx.EQ(largest, lowest), zero, largest)
            yield store(scale, base, [half])
        yield _each(scores, lambda at: tirx.exp(load(scores, at) - load(scale, [tirx.floordiv(at[1], 2)])))
        for half in halves:
            power = tirx.exp(load(state.largest, [half]) - load(scale, [half]))
            yield store(scale, power, [half])
            yield store(state.largest, load(peak, [half]), [half])
            yield store(state.total, load(state.total, [half]) * load(scale, [half]), [half])
        yield _each_of(scores, lambda at: _updated(state.total, at, lambda old: old + load(scores, at)))
        yield _each(state.sums, lambda at: load(state.sums, at) * load(scale, [tirx.floordiv(at[1], 2)]))

    def across(self, values: Buffer, join: Callable[[Expr, Expr], Expr]) -> Iterator[Stmt]:
        """Join what the four threads have that share a row, for both rows of each."""
        other = local([1], "other")
        statements = []
        for half, mask in ((half, mask) for half in range(2) for mask in (1, 2)):
            joined = join(load(values, [half]), load(other, [0]))
            statements += [exchange(other, [0], values, [half], mask), store(values, joined, [half])]
        yield allocate([other], *statements)

    def rounded(self, weights: Buffer, scores: Buffer, k: Expr) -> Stmt:
        """The powers of `TERMS` keys as words of halves, which lie as the next product wants its first factor."""
        data = self.p.factor.data
        made = local([EIGHT], "halves", data)
        powers = (load(scores, [k * 2 + number // 4, number % 4]) for number in range(EIGHT))
        stores = (store(made, narrow(power, data), [number]) for number, power in enumerate(powers))
        return allocate([made], *stores, copy(weights, [k, 0], made, [0], VECTOR))

    def mixed(self, state: _State, weights: Buffer, values: Buffer) -> Stmt:
        """Add the products of powers with values."""
        lane, eighth = lanes(self.thread)
        words = local([4], "words", "uint32")

        def pair(k: Expr, j: Expr) -> Stmt:
            key = k * TERMS + tirx.floormod(eighth, 2) * COLUMNS + tirx.floormod(lane, 8)
            place = [key, j * TERMS + tirx.floordiv(eighth, 2) * COLUMNS]
            return block(
                matrices(words, [0], values, place, are_turned=True),
                *(self.multiplied(state.sums, j * 2 + i, (weights, [k, 0]), (words, [2 * i])) for i in range(2)),
            )

        pairs = self.p.wide // TERMS
        steps = loop(self.p.chunk // TERMS, lambda k: loop(pairs, lambda j: pair(k, j), UNROLLED, "j"), UNROLLED, "k")
        return allocate([words], steps)

    def written(self, sums: Buffer, total: Buffer) -> Stmt:
        """Divide by the sums of powers, and write two columns of a row at once where they lie side by side."""
        p, (*_, last) = self.p, self.stages.values()
        outer = split(self.head, p.batch)
        together = 2 if p.width % 2 == 0 else 1

        def one(number: Expr, half: int, offset: int) -> Stmt:
            row, column = self.place([number, tirx.const(2 * half + offset, "int32")])

            def place(lane: Expr) -> list[Expr]:
                result = [*outer, self.row + row, column + lane]
                return [result[dim] for dim in p.order]

            def element(lane: Expr) -> Expr:
                mean = load(sums, [number, 2 * half + offset + lane]) / load(total, [half])
                return last.at(place(lane), self.stages[RESULT].buffer, mean)

            conditions = [self.row + row < p.queries] if p.queries % p.rows else []
            conditions += [column < p.width] if p.width < p.wide else []
            made = write_lanes(together, last.buffer, place, element)
            return when(tirx.all(*conditions) if conditions else True, made)

        def matrix(number: Expr) -> Stmt:
            return block(*(one(number, half, offset) for half in range(2) for offset in range(0, 2, together)))

        return loop(p.wide // COLUMNS, matrix, UNROLLED, "number")


@dataclass(frozen=True)
class _State:
    """What a thread has between chunks: words of its ``own`` queries, ``sums`` of the result, the ``largest`` score and
    its part of the ``total`` of powers of its two rows."""

    own: Buffer
    sums: Buffer
    largest: Buffer
    total: Buffer


def _vector_place(item: Expr, each: int) -> tuple[Expr, Expr]:
    """The row of a vector, of which there are ``each`` in a row, and its first column: eight threads that store
    together take all banks of one row, or eight rows, which begin in different banks."""
    if each % 8 == 0:
        return tirx.floordiv(item, each), tirx.floormod(item, each) * EIGHT
    row = tirx.floordiv(item, 8 * each) * 8 + tirx.floormod(item, 8)
    return row, tirx.floormod(tirx.floordiv(item, 8), each) * EIGHT


def _each_of(buffer: Buffer, statement: Callable[[Sequence[Expr]], Stmt]) -> Stmt:
    """A statement for each of the sums of matrices."""
    matrices_, each = (int(extent) for extent in buffer.shape)
    return loop(matrices_, lambda i: loop(each, lambda e: statement([i, e]), UNROLLED, "e"), UNROLLED, "i")


def _each(buffer: Buffer, value: Callable[[Sequence[Expr]], Expr]) -> Stmt:
    """Another value for each of the sums of matrices."""
    return _each_of(buffer, lambda at: store(buffer, value(at), at))


def _updated(buffer: Buffer, at: Sequence[Expr], value: Callable[[Expr], Expr]) -> Stmt:
    """Another value for what a row has, of which a sum is one."""
    half = tirx.floordiv(at[1], 2)
    return store(buffer, value(load(buffer, [half])), [half])
