"""The loops of attention: what one task does with a part of the rows of one head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from lvc.backends.tvm import math as functions
from lvc.backends.tvm.attention import BIASED, QUERY, WEIGHTS
from lvc.backends.tvm.cpu.kernels.attention_operands import Attention, Operands
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32
from lvc.backends.tvm.cpu.kernels.register_tile import cut, each_tile, each_tile_of, tile_count
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.fused import Stage
from lvc.backends.tvm.nest import (
    VECTORISED,
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    int32,
    load,
    loop,
    scratch,
    splat,
    store,
    unrolled,
    zeros,
)

_LOWEST = -tirx.infinity("float32")


@dataclass(frozen=True)
class Knobs:
    """What may be tuned: ``rows`` of scores in a block, the register tiles of both products (vectors by rows), and into
    how many parts, each a task, the rows of a head are split."""

    rows: int
    score_vectors: int
    score_rows: int
    value_vectors: int
    value_rows: int
    row_parts: int


@dataclass(frozen=True)
class AttentionNest:
    """Loops with buffers for a block of rows: ``queries``, ``scores`` and what becomes of them, and the ``inverse`` of
    the sum of the powers of each row."""

    p: Attention
    knobs: Knobs
    vector: Vector
    operands: Operands
    queries: Buffer
    scores: Buffer
    inverse: Buffer

    @classmethod
    def of(cls, p: Attention, knobs: Knobs, vector: Vector, stages: dict[str, Stage]) -> AttentionNest:
        """For the stages of a function by name."""
        shapes = {"queries": [knobs.rows, p.depth], "scores": [knobs.rows, p.pitch], "inverse": [knobs.rows]}
        buffers = (scratch(shape, name) for name, shape in shapes.items())
        return cls(p, knobs, vector, Operands.of(p, stages), *buffers)

    def task(self, *place: Expr) -> Stmt:
        """A part of the rows of one head; the place is that in the batch, and the part's number."""
        *head, part = place
        runs = cut(self.p.queries, self.knobs.rows)
        rows = each_tile(runs, lambda row, count: self._block(head, row, count), part, self.knobs.row_parts)
        buffers = (*self.operands.memory, self.queries, self.scores, self.inverse)
        return allocate(buffers, self.operands.copy(head), rows)

    def _block(self, head: Sequence[Expr], row: Expr, rows: int) -> Stmt:
        """So many rows, from queries to results."""

        def query(r: Expr) -> Stmt:
            def element(k: Expr) -> Stmt:
                return store(self.queries, self.operands.read(QUERY, head, row + r, k), [r, k])

            return self.operands.each(self.p.depth, element)

        return block(
            loop(rows, query, name="row"),
            self._score(rows),
            *self._complete(head, row, rows),
            loop(rows, lambda r: self._soften(head, row + r, r), name="row"),
            self._mix(head, row, rows),
        )

    def _score(self, rows: int) -> Stmt:
        """The products of a block's queries with all keys."""
        cost, tile = self.p.score_cost(self.vector), (self.knobs.score_vectors, self.knobs.score_rows)

        def panels(panel: Expr, vectors: int) -> Stmt:
            lines = cost.cut_scalars(vectors, tile, rows)
            return each_tile(lines, lambda row, count: self._score_tile(row, panel, (vectors, count)))

        return each_tile(cut(self.p.panels, tile[0]), panels)

    def _score_tile(self, row: Expr, panel: Expr, shape: tuple[int, int]) -> Stmt:
        lanes = self.p.lanes

        def factors(k: Expr, v: int, s: int) -> tuple[Expr, Expr]:
            return load(self.operands.panels, [panel + v, k, 0], lanes), splat(load(self.queries, [row + s, k]), lanes)

        def finish(v: int, s: int, sums: Buffer) -> Stmt:
            return store(self.scores, load(sums, [0], lanes), [row + s, (panel + v) * lanes], lanes)

        return self._tile(shape, self.p.depth, factors, finish)

    def _tile(
        self,
        shape: tuple[int, int],
        depth: int,
        factors: Callable[[Expr, int, int], tuple[Expr, Expr]],
        finish: Callable[[int, int, Buffer], Stmt],
    ) -> Stmt:
        """A register tile of so many vectors by rows: sums of products of ``factors(step, vector, row)``."""
        sums = FLOAT32.accumulators(*shape, self.p.lanes)

        def step(k: Expr) -> Stmt:
            return FLOAT32.step(self.vector, sums, lambda v, s: [factors(k, v, s)])

        last = sums.each(lambda v, s: finish(v, s, sums.total(v, s)))
        return allocate(sums.memory, sums.clear(), unrolled(depth, step), last)

    def _complete(self, head: Sequence[Expr], row: Expr, rows: int) -> list[Stmt]:
        """Bias and mask for the scores of a block, and the least of all numbers where there is no key. That is done to
        all rows before one is read: a vector that was stored in pieces is not loaded at once."""
        keys, lanes = self.p.keys, self.p.lanes

        def biased(r: Expr, j: Expr) -> Stmt:
            return store(self.scores, self.operands.read(BIASED, head, row + r, j, load(self.scores, [r, j])), [r, j])

        def edge(r: Expr) -> Stmt:
            return loop(-keys % lanes, lambda j: store(self.scores, _LOWEST, [r, j]), VECTORISED, "lane", start=keys)

        def line(r: Expr) -> Stmt:
            sums = [self.operands.each(keys, lambda j: biased(r, j))] if BIASED in self.operands.stages else []
            return block(*sums, *([edge(r)] if keys % lanes else []))

        return [loop(rows, line, name="row")] if BIASED in self.operands.stages or keys % lanes else []

    def _soften(self, head: Sequence[Expr], row: Expr, r: Expr) -> Stmt:
        """From scores to powers of a row, and the inverse of their sum; to weights, if more than that is made of these.

        What is no number becomes none, though it is no largest score: it is among the powers.
        """
        p, lanes = self.p, self.p.lanes
        peak, total, largest = scratch([lanes], "peak"), scratch([lanes], "total"), scratch([1], "largest")

        def score(vector: Expr) -> Expr:
            return load(self.scores, [r, vector * lanes], lanes)

        def power(j: Expr) -> Stmt:
            shifted = load(self.scores, [r, j]) - load(largest, [0])
            return store(self.scores, functions.exp_of_negative(shifted), [r, j])

        def add(vector: Expr) -> Stmt:
            powers = self.operands.over_lanes(lambda lane: power(vector * lanes + lane))
            return block(powers, store(total, load(total, [0], lanes) + score(vector), [0], lanes))

        def weight(j: Expr) -> Stmt:
            softmax = load(self.scores, [r, j]) * load(self.inverse, [r])
            return store(self.scores, self.operands.read(WEIGHTS, head, row, j, softmax), [r, j])

        return allocate(
            [peak, total, largest],
            store(peak, splat(_LOWEST, lanes), [0], lanes),
            loop(
                p.panels, lambda v: store(peak, tirx.max(score(v), load(peak, [0], lanes)), [0], lanes), name="vector"
            ),
            self._across(peak, tirx.max, largest, 0),
            store(total, zeros(lanes), [0], lanes),
            loop(p.panels, add, name="vector"),
            self._across(total, lambda x, y: x + y, self.inverse, r),
            store(self.inverse, tirx.const(1, "float32") / load(self.inverse, [r]), [r]),
            *([self.operands.each(p.keys, weight)] if WEIGHTS in self.operands.stages else []),
        )

    def _across(self, vector: Buffer, join: Callable[[Expr, Expr], Expr], result: Buffer, place: Expr) -> Stmt:
        """Join the lanes of a vector, half with half, into an element of a buffer."""
        width, buffers, statements = self.p.lanes, list[Buffer](), list[Stmt]()
        while width > 1:
            width //= 2
            whole = [load(vector, [0], 2 * width)]
            halves = [tirx.Shuffle(whole, [int32(first + i) for i in range(width)]) for first in (0, width)]
            vector = scratch([width], "half")
            buffers.append(vector)
            statements.append(store(vector, join(*halves), [0], width))
        return allocate(buffers, *statements, store(result, load(vector, [0]), [place]))

    def _mix(self, head: Sequence[Expr], row: Expr, rows: int) -> Stmt:
        """The results of a block: values by weights."""
        p, cost, tile = self.p, self.p.value_cost(self.vector), (self.knobs.value_vectors, self.knobs.value_rows)
        runs, rest = cut(p.columns, tile[0]), p.width % p.lanes

        def columns(column: Expr, vectors: int, last: int = p.lanes) -> Stmt:
            lines = cost.cut_scalars(vectors, tile, rows)
            return each_tile(lines, lambda r, n: self._result_tile((head, row), r, column, (vectors, n), last))

        if not rest:
            return each_tile(runs, columns)
        *whole, end = runs
        whole += [replace(end, count=end.count - 1)] if end.count > 1 else []
        parts = [each_tile_of(run, tile_count(runs), columns) for run in whole]
        return block(*parts, columns(int32(end.start + (end.count - 1) * end.size), end.size, rest))

    def _result_tile(
        self, place: tuple[Sequence[Expr], Expr], r: Expr, column: Expr, shape: tuple[int, int], last: int
    ) -> Stmt:
        """A tile of results, of whose last vector so many lanes are columns."""
        (head, row), lanes = place, self.p.lanes

        def factors(j: Expr, v: int, s: int) -> tuple[Expr, Expr]:
            return self.operands.value(head, j, (column + v) * lanes), splat(load(self.scores, [r + s, j]), lanes)

        def finish(v: int, s: int, sums: Buffer) -> Stmt:
            def element(lane: Expr) -> Stmt:
                total = load(sums, [lane])
                if WEIGHTS not in self.operands.stages:
                    total = total * load(self.inverse, [r + s])
                return self.operands.write([*head, row + r + s, (column + v) * lanes + lane], total)

            return self.operands.over_lanes(element, last if v == shape[0] - 1 else lanes)

        return self._tile(shape, self.p.keys, factors, finish)
