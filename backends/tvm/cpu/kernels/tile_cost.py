"""The rule that picks register tiles: cycles by count, on the core that the vector unit is part of.

Cycles only rank tiles, and most of the ranking comes from what tiles leave over at the edges, so they need not be
exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.register_tile import Run, cut, tile_count
from lvc.backends.tvm.cpu.kernels.row_registers import WORDS, fits_rows, takes_rows
from lvc.backends.tvm.cpu.vector import Vector

TILE_OVERHEAD = 24  # cycles to enter and leave the reduction of one tile
FIRST_SHARE, SECOND_SHARE = 0.75, 0.625  # of the caches, for the stored operand between two tiles
VARIANT_COST = 0.02  # what another shape of tile is worth avoiding: the code grows with each
HEIGHTS = (1, 2, 3, 4)  # vectors in a tile

Plane = tuple[int, int]  # vectors, scalars


@dataclass(frozen=True)
class TileCost:
    """The cost of tiles whose reduction has ``depth`` steps, done in so many parts.

    A tile is (vectors, scalars). The vectors' operand is read anew for each tile of a line and for each of so many
    lines; the scalars' operand is taken to lie close by, its elements neighbours or rows ``stride`` bytes apart.
    """

    vector: Vector
    depth: int
    parts: int = 1
    lines: int = 1
    operand: DotOperand = FLOAT32
    stride: int = 0

    @property
    def _takes_rows(self) -> bool:
        return takes_rows(self.operand, self.vector)

    @property
    def _waits_for_loads(self) -> bool:
        """Whether loads take time of their own. Of operands that take several registers there are so many loads that
        estimates (llvm-mca) rank tiles as on other cores."""
        return self.vector.machine.in_order and self.operand.registers(self.vector) == 1

    def fits(self, vectors: int, scalars: int) -> bool:
        """Whether a tile, the operands in flight and what a step needs for itself fit the registers."""
        if self._takes_rows:
            return fits_rows(vectors, scalars)
        whole = self.operand.whole(scalars)
        if (rows := self.operand.rows) > 1:
            operands = min(vectors * rows, whole // rows) + 1
        else:
            operands = min(vectors, scalars) * self.operand.registers(self.vector) + 1
        return vectors * whole + operands + self.operand.scratch_registers <= self.operand.tile_registers(self.vector)

    def tile(self, vectors: int, scalars: int, is_again: bool = True) -> float:
        """Cycles of one tile: bound by the arithmetic, the loads, the scalars that go into all lanes, the latency of
        the chain, and, where the vectors' operand ``is_again`` read, the cache that it comes from."""
        cost = self.operand.step_cost(self.vector)
        scalars = self.operand.whole(scalars)
        loads = (vectors + scalars / (WORDS if self._takes_rows else self.operand.rows**2)) / self.vector.machine.loads
        arithmetic = vectors * scalars * cost.cycles
        step = max(arithmetic + loads if self._waits_for_loads else max(arithmetic, loads), cost.latency)
        step = max(step, scalars * cost.splat)
        if is_again:
            step = max(step, self._bytes_per_step(vectors) / self._rate(vectors))
        if self.parts == 1:
            return self.depth * step + TILE_OVERHEAD
        return self.depth * step + self.parts * (TILE_OVERHEAD + 4 * vectors * scalars)

    def line(self, vectors: int, runs: tuple[Run, ...]) -> float:
        """Cycles of a row of tiles."""
        return sum(run.count * self.tile(vectors, run.size, tile_count(runs) * self.lines > 1) for run in runs)

    def best_scalars(self, vectors: int, extent: int) -> int:
        """The width that cuts an extent with the fewest cycles, for tiles of so many vectors."""
        most = min(extent, max(self.vector.registers, self.operand.tile_registers(self.vector)))
        widths = [w for w in range(1, most + 1) if self.fits(vectors, w) and self._stay_side_by_side(w)]
        return min(widths, key=lambda w: (self.line(vectors, self.cut(extent, w)), w))

    def cut(self, extent: int, scalars: int) -> tuple[Run, ...]:
        """How the scalars' side is cut into tiles of at most so many, which are as many as steps take together."""
        return cut(extent, scalars, self.operand.rows)

    def cut_scalars(self, vectors: int, tile: tuple[int, int], extent: int) -> tuple[Run, ...]:
        """How the scalars' side is cut for tiles of so many vectors: as ``tile`` says if it has as many, else as is
        best."""
        return self.cut(extent, tile[1] if vectors == tile[0] else self.best_scalars(vectors, extent))

    def plane(self, size: Plane, tile: tuple[int, int]) -> float:
        """Cycles of a plane cut into such tiles, with something added for every shape of tile that it takes."""
        rows = cut(size[0], tile[0])
        lines = [self.cut_scalars(row.size, tile, size[1]) for row in rows]
        cycles = sum(row.count * self.line(row.size, line) for row, line in zip(rows, lines, strict=True))
        return cycles * (1 + VARIANT_COST * sum(len(line) for line in lines))

    def best_tile(self, size: Plane, heights: Sequence[int] = HEIGHTS) -> tuple[int, int]:
        """The tile that covers a plane with the fewest cycles, its vectors being one of ``heights``."""
        tiles = [(v, self.best_scalars(v, size[1])) for v in heights if v <= size[0]]
        return min(tiles, key=lambda tile: self.plane(size, tile))

    def _stay_side_by_side(self, scalars: int) -> bool:
        """Whether the first level keeps so many rows of the scalars' operand from step to step."""
        return not self.stride or self.vector.machine.first.holds(scalars, self.stride)

    def _bytes_per_step(self, vectors: int) -> int:
        return self.vector.lanes * self.operand.word_bytes * vectors

    def _rate(self, vectors: int) -> float:
        size, machine = self._bytes_per_step(vectors) * self.depth / self.parts, self.vector.machine
        if size <= FIRST_SHARE * machine.first.size:
            return self._bytes_per_step(1) * machine.loads
        return machine.second_rate if size <= SECOND_SHARE * machine.second.size else machine.third_rate
