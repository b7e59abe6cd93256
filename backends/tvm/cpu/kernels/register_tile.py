"""Register tiles: how a plane of outputs is cut so that the accumulators of each piece fill the vector registers.

A tile of r vectors by w scalars keeps r*w accumulators in registers. Each step of the reduction loads r vectors of one
operand and w scalars of the other, and does r*w multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    in_turns,
    int32,
    load,
    loop,
    scratch,
    splat,
    store,
    zeros,
)
from lvc.compiler.ir.bounds import FLOAT16_TERMS

AddProduct = Callable[[Expr, Expr, Expr], Expr]  # sums, a vector, a scalar in every lane


def multiply_add(sums: Expr, vector: Expr, scalar: Expr) -> Expr:
    """The product of one number with one number."""
    return sums + vector * scalar


@dataclass(frozen=True)
class Run:
    """``count`` neighbouring tiles of ``size`` elements, the first at element ``start``, being tile ``first``."""

    first: int
    start: int
    count: int
    size: int


def cut(extent: int, size: int, multiple: int = 1) -> tuple[Run, ...]:
    """Cut an extent into the fewest tiles of at most ``size`` elements, whose sizes differ by one at most; or by one
    ``multiple``, which all tiles are whole numbers of but for the last one."""
    if not extent:
        return ()
    if multiple > 1:
        return _cut_by(extent, max(size // multiple, 1), multiple)
    count = -(-extent // size)
    size, large = -(-extent // count), extent % count or count
    runs = [Run(0, 0, large, size)]
    if large < count:
        runs.append(Run(large, large * size, count - large, size - 1))
    return tuple(runs)


def _cut_by(extent: int, size: int, multiple: int) -> tuple[Run, ...]:
    whole = cut(-(-extent // multiple), size)
    runs = [Run(run.first, run.start * multiple, run.count, run.size * multiple) for run in whole]
    if missing := -extent % multiple:
        last = runs.pop()
        if last.count > 1:
            runs.append(Run(last.first, last.start, last.count - 1, last.size))
        before = last.count - 1
        runs.append(Run(last.first + before, last.start + before * last.size, 1, last.size - missing))
    return tuple(runs)


def tile_count(runs: tuple[Run, ...]) -> int:
    """How many tiles there are."""
    return sum(run.count for run in runs)


def each_tile(runs: tuple[Run, ...], body: Callable[[Expr, int], Stmt], part: Expr = 0, parts: int = 1) -> Stmt:
    """Run ``body(first element, size)`` for every tile, or for one of so many equal parts of them."""
    return block(*(each_tile_of(run, tile_count(runs), body, part, parts) for run in runs))


def each_tile_of(run: Run, total: int, body: Callable[[Expr, int], Stmt], part: Expr = 0, parts: int = 1) -> Stmt:
    """Run ``body(first element, size)`` for those tiles of one run, of ``total`` in all runs, that are in a part."""
    first, count = _share(run, total, part, parts)
    return loop(count, lambda tile: body((tile - run.first) * run.size + run.start, run.size), name="tile", start=first)


def _share(run: Run, total: int, part: Expr, parts: int) -> tuple[Expr, Expr]:
    """The first tile of a run that is in a part of all tiles, and how many follow."""
    count = -(-total // parts)
    if parts == 1:
        return run.first, run.count
    if run.count == count * parts:
        return part * count, count
    begin = tirx.max(part * count, run.first)
    end = tirx.min(part * count + count, run.first + run.count)
    return begin, tirx.max(end - begin, 0)


@dataclass(frozen=True)
class Accumulators:
    """The registers of one tile: a buffer each, so that LLVM keeps every one in a register. Steps take ``rows`` scalars
    together.

    Sums of a short type stay in registers for a part of the reduction alone, and are then carried over into ``wide``
    ones, which lie in memory.
    """

    vectors: int
    scalars: int
    lanes: int
    buffers: tuple[Buffer, ...]
    dtype: str = "float32"
    rows: int = 1
    wide: tuple[Buffer, ...] = ()

    @classmethod
    def make(
        cls, vectors: int, scalars: int, lanes: int, dtype: str = "float32", rows: int = 1, *, held: str = ""
    ) -> Accumulators:
        """Name the registers of a tile, which hold a shorter type than that of the sums if ``held`` names one;
        `nest.allocate` must enclose the use of their ``memory``."""
        whole = -(-scalars // rows) * rows

        def each(name: str, dtype: str) -> tuple[Buffer, ...]:
            return tuple(scratch([lanes], name, dtype) for _ in range(vectors * whole))

        wide = each("wide", dtype) if held else ()
        return cls(vectors, whole, lanes, each("sum", held or dtype), held or dtype, rows, wide)

    @property
    def memory(self) -> tuple[Buffer, ...]:
        """All that must be allocated."""
        return (*self.buffers, *self.wide)

    def at(self, vector: int, scalar: int) -> Buffer:
        """The register with the sums of one vector and one scalar."""
        return self.buffers[vector * self.scalars + scalar]

    def regroup(self) -> list[Stmt]:
        """Where steps take two scalars together: from registers with the sums of two scalars for half of a vector's
        lanes to those of one scalar for all of them, or back, since what is done twice is undone."""
        if self.rows == 1:
            return []
        kept, half = scratch([self.lanes], "kept", self.dtype), self.lanes // 2

        def pair(vector: int, scalar: int) -> Stmt:
            both = self.at(vector, scalar), self.at(vector, scalar + 1)
            sums = [load(register, [0], self.lanes) for register in both]

            def halves(start: int) -> Expr:
                return tirx.Shuffle(
                    sums, [int32(first + i) for first in (start, start + self.lanes) for i in range(half)]
                )

            parts = store(kept, halves(half), [0], self.lanes), store(both[0], halves(0), [0], self.lanes)
            return block(*parts, store(both[1], load(kept, [0], self.lanes), [0], self.lanes))

        pairs = [(v, s) for v in range(self.vectors) for s in range(0, self.scalars, 2)]
        return [allocate([kept], *(pair(*place) for place in pairs))]

    def total(self, vector: int, scalar: int) -> Buffer:
        """The sums of one vector and one scalar at the end of a reduction."""
        return (self.wide or self.buffers)[vector * self.scalars + scalar]

    def clear(self) -> Stmt:
        """Set all to zero."""
        wide = [store(buffer, zeros(self.lanes), [0], self.lanes) for buffer in self.wide]
        return block(self.clear_registers(), *wide)

    def clear_registers(self) -> Stmt:
        """Set those in registers to zero."""
        return self.each(lambda v, s: store(self.at(v, s), zeros(self.lanes, self.dtype), [0], self.lanes))

    def in_parts(self, extent: int, steps: int, body: Callable[[Expr, int], Stmt]) -> Stmt:
        """Run ``body(first, count)`` for the indices below an extent, at each of which the reduction takes so many
        steps: at once, or as many at a time as short sums may take."""
        if not self.wide:
            return body(0, extent)
        return in_turns(extent, lambda *part: self.carried(body(*part)), max(1, FLOAT16_TERMS // steps))

    def carried(self, part: Stmt) -> Stmt:
        """A part of the reduction, after which what is in registers is added to the wide sums."""

        def add(register: Buffer, wide: Buffer) -> Stmt:
            held = tirx.Cast(f"float32x{self.lanes}", load(register, [0], self.lanes))
            return store(wide, load(wide, [0], self.lanes) + held, [0], self.lanes)

        return block(part, *map(add, self.buffers, self.wide), self.clear_registers()) if self.wide else part

    def add_products(
        self, vector: Callable[[int], Expr], scalar: Callable[[int], Expr], add: AddProduct = multiply_add
    ) -> Stmt:
        """One step of the reduction: add the product of each vector with each scalar.

        The longer side is walked outside, so that it passes through one register while the shorter stays in its own.
        """

        return self.update(lambda sums, v, s: add(sums, vector(v), splat(scalar(s), self.lanes)))

    def update(self, change: Callable[[Expr, int, int], Expr]) -> Stmt:
        """Put ``change(sums, vector, scalar)`` in the place of each register's sums."""

        def step(v: int, s: int) -> Stmt:
            register = self.at(v, s)
            return store(register, change(load(register, [0], self.lanes), v, s), [0], self.lanes)

        return self.each(step)

    def each(self, body: Callable[[int, int], Stmt], scalars: int | None = None) -> Stmt:
        """Run ``body(vector, scalar)`` for each accumulator, or those of so many scalars."""
        scalars = scalars or self.scalars
        if self.vectors <= scalars:
            return block(*(body(v, s) for s in range(scalars) for v in range(self.vectors)))
        return block(*(body(v, s) for v in range(self.vectors) for s in range(scalars)))
