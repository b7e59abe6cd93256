"""What attention reads: its operands at any place, keys in panels, values in vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tvm import ir, sym, tirx

from lvc.backends.tvm.attention import BEFORE, KEY, VALUE
from lvc.backends.tvm.cpu.kernels.point_transform import Registers
from lvc.backends.tvm.cpu.kernels.tile_cost import TileCost
from lvc.backends.tvm.cpu.kernels.transposition import transposed
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
    store,
    zeros,
)

_SHORT = 4  # parts of a vector of keys of which one is not worth to be transposed as a square


@dataclass(frozen=True)
class Attention:
    """``queries`` rows times ``keys`` columns of ``depth`` terms, softmax of the rows, times ``keys`` rows of
    ``width``, for each index of the outer dimensions ``batch``; vectors of ``lanes``."""

    batch: tuple[int, ...]
    queries: int
    keys: int
    depth: int
    width: int
    lanes: int = 8

    @cached_property
    def panels(self) -> int:
        """Vectors of a row of scores."""
        return -(-self.keys // self.lanes)

    @cached_property
    def columns(self) -> int:
        """Vectors of a row of values."""
        return -(-self.width // self.lanes)

    @cached_property
    def pitch(self) -> int:
        """Elements from one row of scores to the next; not so many that rows share few sets of a cache."""
        row = self.panels * self.lanes
        return row if row % 128 else row + self.lanes

    def score_cost(self, vector: Vector) -> TileCost:
        """The cost of tiles of scores."""
        return TileCost(vector, self.depth, stride=4 * self.depth)

    def value_cost(self, vector: Vector) -> TileCost:
        """The cost of tiles of results."""
        return TileCost(vector, self.keys, stride=4 * self.pitch)


@dataclass(frozen=True)
class Operands:
    """``stages`` are those of the function by name, the last one the output; ``panels`` ``[panels, depth, lanes]`` have
    the keys of one head, and ``values`` in whole vectors its values, where they are copied."""

    p: Attention
    stages: dict[str, Stage]
    panels: Buffer
    values: Buffer

    @classmethod
    def of(cls, p: Attention, stages: dict[str, Stage]) -> Operands:
        """With buffers that must be allocated."""
        panels = scratch([p.panels, p.depth, p.lanes], "panels")
        return cls(p, stages, panels, scratch([p.keys, p.columns * p.lanes], "values"))

    @property
    def memory(self) -> tuple[Buffer, ...]:
        """All that must be allocated."""
        return (self.panels,) if self.reads_values else (self.panels, self.values)

    def copy(self, head: Sequence[Expr]) -> Stmt:
        """Fill the buffers for one head."""
        return block(self._pack_keys(head), *([] if self.reads_values else [self._copy_values(head)]))

    def read(self, name: str, head: Sequence[Expr], row: Expr, column: Expr, before: Expr = None) -> Expr:
        """An element of a stage, whose outer dimensions may have another shape than the batch; ``before`` is the
        element of the stage that it is made of."""
        stage, batch = self.stages[name], self.p.batch
        outer = tuple(int(size) for size in stage.buffer.shape[:-2])
        if outer != batch:
            number = int32(0)
            for index, size in zip(head, batch, strict=True):
                number = number * size + index
            head = []
            for size in reversed(outer):
                head = [tirx.floormod(number, size), *head]
                number = tirx.floordiv(number, size)
        read = self.stages[BEFORE[name]].buffer if name in BEFORE else None
        return stage.at([*head, row, column], read, before)

    def each(self, extent: int, body: Callable[[Expr], Stmt]) -> Stmt:
        """Run ``body(index)`` for all indices below an extent, as many at once as there are lanes."""
        whole, rest = divmod(extent, self.p.lanes)
        vectors = loop(whole, lambda v: self.over_lanes(lambda lane: body(v * self.p.lanes + lane)), name="vector")
        last = self.over_lanes(lambda lane: body(whole * self.p.lanes + lane), rest)
        return block(*([vectors] if whole else []), *([last] if rest else []))

    def over_lanes(self, body: Callable[[Expr], Stmt], count: int | None = None) -> Stmt:
        """Run ``body(lane)`` for all lanes at once, or for so many."""
        return loop(self.p.lanes if count is None else count, body, VECTORISED, "lane")

    def _pack_keys(self, head: Sequence[Expr]) -> Stmt:
        """Put the keys into panels, zeros past the last."""
        lanes = self.p.lanes
        whole, rest = divmod(self.p.keys, lanes)

        def copied(panel: Expr, count: int) -> Stmt:
            def step(k: Expr) -> Stmt:
                def element(lane: Expr) -> Stmt:
                    return store(self.panels, self.read(KEY, head, k, panel * lanes + lane), [panel, k, lane])

                return block(*self._cleared(self.panels, [panel, k, 0], count), self.over_lanes(element, count))

            return loop(self.p.depth, step, name="step")

        def fill(panel: Expr, count: int) -> Stmt:
            is_short = count * _SHORT <= lanes
            return copied(panel, count) if is_short or self._follow(KEY) else self._turn_keys(head, panel, count)

        full = [loop(whole, lambda panel: fill(panel, lanes), name="panel")] if whole else []
        return block(*full, *([fill(int32(whole), rest)] if rest else []))

    def _cleared(self, buffer: Buffer, place: Sequence[Expr], count: int) -> list[Stmt]:
        """Zeros for a vector of which no more than so many lanes will be filled."""
        lanes = self.p.lanes
        return [store(buffer, zeros(lanes), place, lanes)] if count < lanes else []

    def _turn_keys(self, head: Sequence[Expr], panel: Expr, count: int) -> Stmt:
        """One panel by way of a copy of so many keys, which is transposed square by square."""
        depth, lanes = self.p.depth, self.p.lanes
        squares, rest = divmod(depth, lanes)
        rows = scratch([lanes, -(-depth // lanes) * lanes], "rows")

        def copy(r: Expr) -> Stmt:
            return self.each(depth, lambda k: store(rows, self.read(KEY, head, k, panel * lanes + r), [r, k]))

        def clear(r: Expr, first: int) -> Stmt:
            count = -(-depth // lanes) - first
            return loop(count, lambda v: store(rows, zeros(lanes), [r, v * lanes], lanes), start=first)

        def square(number: Expr, steps: int) -> Stmt:
            registers, first = Registers(lanes), number * lanes
            columns = transposed(registers, [load(rows, [r, first], lanes) for r in range(lanes)])
            write = [store(self.panels, columns[k], [panel, first + k, 0], lanes) for k in range(steps)]
            return allocate(registers.buffers, *registers.statements, *write)

        parts = [loop(lanes, lambda r: clear(r, squares), name="key")] if rest else []
        parts += [loop(lanes - count, lambda r: clear(r, 0), name="key", start=count)] if count < lanes else []
        parts += [loop(count, copy, name="key")]
        parts += [loop(squares, lambda number: square(number, lanes), name="square")] if squares else []
        return allocate([rows], *parts, *([square(int32(squares), rest)] if rest else []))

    def _copy_values(self, head: Sequence[Expr]) -> Stmt:
        """Put the values into whole vectors, zeros past the last column."""
        width, lanes = self.p.width, self.p.lanes

        def line(j: Expr) -> Stmt:
            last = self._cleared(self.values, [j, width // lanes * lanes], width % lanes or lanes)
            copy = self.each(width, lambda c: store(self.values, self.read(VALUE, head, j, c), [j, c]))
            return block(*last, copy)

        return loop(self.p.keys, line, name="key")

    def value(self, head: Sequence[Expr], j: Expr, column: Expr) -> Expr:
        """A vector of values."""
        if not self.reads_values:
            return load(self.values, [j, column], self.p.lanes)
        first = self.read(VALUE, head, j, column)
        return load(first.source, list(first.indices), self.p.lanes)

    @cached_property
    def reads_values(self) -> bool:
        """Whether values lie in memory as whole vectors, which need no copy."""
        is_read = isinstance(self.stages[VALUE].value, ir.TensorLoad)
        return is_read and self.p.width % self.p.lanes == 0 and self._follow(VALUE)

    def _follow(self, name: str) -> bool:
        """Whether elements of a stage's row lie one after the other in all that it reads."""
        stage, analyzer = self.stages[name], sym.Analyzer()
        for axis, size in zip(stage.axes, stage.buffer.shape, strict=True):
            analyzer.bind(axis, ir.Range(0, size))
        *outer, column = stage.axes
        moved = replace(stage, value=stage.at([*outer, column + 1]))
        pairs = zip(stage.loads(), moved.loads(), strict=True)
        return all(_is_next(analyzer, one.indices, other.indices) for one, other in pairs)

    def write(self, place: Sequence[Expr], total: Expr) -> Stmt:
        """Write an element of the result where the output has it."""
        *_, last = self.stages.values()
        (read,) = last.loads()
        at = dict(zip(read.indices, place, strict=True))
        index = [at.get(axis, 0) for axis in last.axes]
        return tirx.BufferStore(last.buffer, last.at(index, read.source, total), [int32(i) for i in index])


def _is_next(analyzer: Any, here: Sequence[Expr], after: Sequence[Expr]) -> bool:
    """Whether one place is that of the next element along the last dimension."""
    *outer, column = zip(here, after, strict=True)
    return all(analyzer.can_prove_equal(*pair) for pair in outer) and analyzer.can_prove_equal(column[0] + 1, column[1])
