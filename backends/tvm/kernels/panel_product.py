"""The product of a matrix with a matrix in panels: ``[M, K]`` plain times ``[ceil(N/block), K, block]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.kernels.nest import Buffer, Expr, Stmt, allocate, block, unrolled
from lvc.backends.tvm.kernels.parts import Work
from lvc.backends.tvm.kernels.register_tile import Accumulators, Run, cut, each_tile, tile_count
from lvc.backends.tvm.kernels.tile_cost import HEIGHTS, TileCost
from lvc.backends.tvm.vector import Vector

TALL_HEIGHTS = (*HEIGHTS, 6, 8)  # with few rows it takes more vectors to hide the latency


@dataclass(frozen=True)
class Knobs:
    """What may be tuned. A register tile is ``vectors`` panels by ``rows`` rows, with ``unroll`` steps of the reduction
    in one turn of its loop; the rows and the panels are split into so many parts, each pair of parts a task."""

    vectors: int
    rows: int
    row_parts: int
    panel_parts: int
    unroll: int = 8


def choose_knobs(size: tuple[int, int, int], batch: int, width: int, vector: Vector) -> Knobs:
    """Knobs for a product of ``size`` (m, n, k), of which there are ``batch``, with panels of ``width`` columns."""
    m, n, k = size
    cost, panels = TileCost(vector, k), -(-n // width)
    vectors, rows = cost.best_tile((panels, m), TALL_HEIGHTS if m < 4 else HEIGHTS)
    work = Work(
        cycles=cost.plane((panels, m), (vectors, rows)),
        lines=tile_count(cut(m, rows)),
        tiles=tile_count(cut(panels, vectors)),
        data=4 * m * k,
        weights=4 * n * k,
    )
    return Knobs(vectors, rows, *work.split(batch))


@dataclass(frozen=True)
class PanelProduct:
    """The loops of one product. ``scalar(row, k)`` reads the plain matrix, ``panel(number, k)`` a row of a panel, and
    ``finish(row, column, sums, lanes)`` writes what came of a register."""

    size: tuple[int, int, int]
    width: int
    vector: Vector
    knobs: Knobs
    scalar: Callable[[Expr, Expr], Expr]
    panel: Callable[[Expr, Expr], Expr]
    finish: Callable[[Expr, Expr, Buffer, int], Stmt]

    @cached_property
    def panel_tiles(self) -> tuple[Run, ...]:
        """How the full panels are cut."""
        return cut(self.size[1] // self.width, self.knobs.vectors)

    def part(self, row_part: Expr, panel_part: Expr) -> Stmt:
        """The product of one part of the rows with one part of the panels."""
        full, rest = divmod(self.size[1], self.width)

        def tile(first: Expr, vectors: int) -> Stmt:
            return self._rows(row_part, first, vectors, self.width)

        statements = [each_tile(self.panel_tiles, tile, panel_part, self.knobs.panel_parts)] if full else []
        if rest:
            last = self._rows(row_part, full, 1, rest)
            is_last = tirx.EQ(panel_part, self.knobs.panel_parts - 1) if self.knobs.panel_parts > 1 else None
            statements.append(tirx.IfThenElse(is_last, last, None) if is_last is not None else last)
        return block(*statements)

    def _rows(self, part: Expr, panel: Expr, vectors: int, lanes: int) -> Stmt:
        def tile(row: Expr, rows: int) -> Stmt:
            return self._tile(row, panel, (vectors, rows), lanes)

        shape, cost = (self.knobs.vectors, self.knobs.rows), TileCost(self.vector, self.size[2])
        runs = cost.cut_scalars(vectors, shape, self.size[0])
        return each_tile(runs, tile, part, self.knobs.row_parts)

    def _tile(self, row: Expr, panel: Expr, shape: tuple[int, int], lanes: int) -> Stmt:
        sums = Accumulators.make(*shape, self.width)

        def step(k: Expr) -> Stmt:
            return sums.add_products(lambda v: self.panel(panel + v, k), lambda s: self.scalar(row + s, k))

        def finish(v: int, s: int) -> Stmt:
            return self.finish(row + s, (panel + v) * self.width, sums.at(v, s), lanes)

        return allocate(sums.buffers, sums.clear(), unrolled(self.size[2], self.knobs.unroll, step), sums.each(finish))
