"""Register tiles: how a plane of outputs is cut so that the accumulators of each piece fill the vector registers.

A tile of r vectors by w scalars keeps r*w accumulators in registers. Each step of the reduction loads r vectors of one
operand and w scalars of the other, and does r*w multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, block, load, loop, scratch, splat, store, zeros
from lvc.backends.tvm.vector import Vector

FMA_PER_CYCLE = 2
LOADS_PER_CYCLE = 2
FMA_LATENCY = 4
TILE_OVERHEAD = 24  # cycles to enter and leave the reduction of one tile
VARIANT_COST = 0.02  # what another shape of tile is worth avoiding: the code grows with each
HEIGHTS = (1, 2, 3, 4)  # vectors in a tile

Plane = tuple[int, int]  # vectors, scalars


@dataclass(frozen=True)
class Run:
    """``count`` neighbouring tiles of ``size`` elements, the first at element ``start``, being tile ``first``."""

    first: int
    start: int
    count: int
    size: int


def cut(extent: int, size: int) -> tuple[Run, ...]:
    """Cut an extent into the fewest tiles of at most ``size`` elements, whose sizes differ by one at most."""
    if not extent:
        return ()
    count = -(-extent // size)
    size, large = -(-extent // count), extent % count or count
    runs = [Run(0, 0, large, size)]
    if large < count:
        runs.append(Run(large, large * size, count - large, size - 1))
    return tuple(runs)


def tile_count(runs: tuple[Run, ...]) -> int:
    """How many tiles there are."""
    return sum(run.count for run in runs)


def each_tile(runs: tuple[Run, ...], body: Callable[[Expr, int], Stmt], part: Expr = 0, parts: int = 1) -> Stmt:
    """Run ``body(first element, size)`` for every tile, or for one of so many equal parts of them."""
    total = tile_count(runs)
    count = -(-total // parts)
    if parts == 1:
        return block(*(_tiles(run, body, run.first, run.count) for run in runs))
    if len(runs) == 1 and count * parts == total:
        return _tiles(runs[0], body, part * count, count)
    return block(*(_tiles(run, body, *_clip(run, part * count, count)) for run in runs))


def _tiles(run: Run, body: Callable[[Expr, int], Stmt], first: Expr, count: Expr) -> Stmt:
    return loop(count, lambda tile: body((tile - run.first) * run.size + run.start, run.size), name="tile", start=first)


def _clip(run: Run, first: Expr, count: int) -> tuple[Expr, Expr]:
    begin = tirx.max(first, run.first)
    end = tirx.min(first + count, run.first + run.count)
    return begin, tirx.max(end - begin, 0)


@dataclass(frozen=True)
class Accumulators:
    """The registers of one tile: a buffer each, so that LLVM keeps every one in a register."""

    vectors: int
    scalars: int
    lanes: int
    buffers: tuple[Buffer, ...]

    @classmethod
    def make(cls, vectors: int, scalars: int, lanes: int) -> Accumulators:
        """Name the registers of a tile; `nest.allocate` must enclose their use."""
        return cls(vectors, scalars, lanes, tuple(scratch([lanes], "sum") for _ in range(vectors * scalars)))

    def at(self, vector: int, scalar: int) -> Buffer:
        """The register with the sums of one vector and one scalar."""
        return self.buffers[vector * self.scalars + scalar]

    def clear(self) -> Stmt:
        """Set all to zero."""
        return self.each(lambda v, s: store(self.at(v, s), zeros(self.lanes), [0], self.lanes))

    def add_products(self, vector: Callable[[int], Expr], scalar: Callable[[int], Expr]) -> Stmt:
        """One step of the reduction: add the product of each vector with each scalar.

        The longer side is walked outside, so that it passes through one register while the shorter stays in its own.
        """

        def step(v: int, s: int) -> Stmt:
            sums = self.at(v, s)
            product = vector(v) * splat(scalar(s), self.lanes)
            return store(sums, load(sums, [0], self.lanes) + product, [0], self.lanes)

        return self.each(step)

    def each(self, body: Callable[[int, int], Stmt]) -> Stmt:
        """Run ``body(vector, scalar)`` for each accumulator."""
        if self.vectors <= self.scalars:
            return block(*(body(v, s) for s in range(self.scalars) for v in range(self.vectors)))
        return block(*(body(v, s) for v in range(self.vectors) for s in range(self.scalars)))


def fits(vectors: int, scalars: int, vector: Vector) -> bool:
    """Whether a tile and the operands in flight fit the registers."""
    return vectors * scalars + min(vectors, scalars) + 1 <= vector.registers


def step_cycles(vectors: int, scalars: int) -> float:
    """Cycles of one step of the reduction: bound by the multipliers, the loads, or the latency of the chain."""
    return max(vectors * scalars / FMA_PER_CYCLE, (vectors + scalars) / LOADS_PER_CYCLE, FMA_LATENCY)


def line_cycles(vectors: int, runs: tuple[Run, ...], depth: int) -> float:
    """Cycles of a row of tiles, each with a reduction of ``depth`` steps."""
    return sum(run.count * (depth * step_cycles(vectors, run.size) + TILE_OVERHEAD) for run in runs)


def best_scalars(vectors: int, extent: int, depth: int, vector: Vector) -> int:
    """The width that cuts an extent with the fewest cycles, for tiles of so many vectors."""
    widths = [w for w in range(1, extent + 1) if fits(vectors, w, vector)]
    return min(widths, key=lambda w: (line_cycles(vectors, cut(extent, w), depth), w))


def cut_scalars(vectors: int, tile: tuple[int, int], size: Plane, depth: int, vector: Vector) -> tuple[Run, ...]:
    """How the scalars' side of a plane is cut for tiles of so many vectors: as ``tile`` says if it is as high, else at
    its best."""
    return cut(size[1], tile[1] if vectors == tile[0] else best_scalars(vectors, size[1], depth, vector))


def best_tile(size: Plane, depth: int, vector: Vector, heights: Sequence[int] = HEIGHTS) -> tuple[int, int]:
    """The (vectors, scalars) that cover a plane with the fewest cycles, vectors being one of ``heights``."""

    def cost(tile: tuple[int, int]) -> float:
        rows = cut(size[0], tile[0])
        lines = [cut_scalars(row.size, tile, size, depth, vector) for row in rows]
        cycles = sum(row.count * line_cycles(row.size, line, depth) for row, line in zip(rows, lines, strict=True))
        return cycles * (1 + VARIANT_COST * sum(len(line) for line in lines))

    tiles = [(v, best_scalars(v, size[1], depth, vector)) for v in heights if v <= size[0]]
    return min(tiles, key=cost)
