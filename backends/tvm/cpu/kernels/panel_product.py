"""The product of a matrix with a matrix in panels: ``[M, K]`` plain times ``[ceil(N/block), K, block]``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES, DotOperand
from lvc.backends.tvm.cpu.kernels.paired_rows import COPY_RATE, PairedRows
from lvc.backends.tvm.cpu.kernels.parts import Work
from lvc.backends.tvm.cpu.kernels.prefetch import prefetch_pays
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators, Run, cut, each_tile, each_tile_of, tile_count
from lvc.backends.tvm.cpu.kernels.row_registers import WORDS, Scalar, by_rows, takes_rows
from lvc.backends.tvm.cpu.kernels.saturation import SaturationMask
from lvc.backends.tvm.cpu.kernels.space import Point, Space, tiles
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS, VARIANT_COST, TileCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import (
    UNROLL,
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    loop,
    scratch,
    splat,
    unrolled,
)

TALL_HEIGHTS = (*HEIGHTS, 6, 8)  # with few rows it takes more vectors to hide the latency


@dataclass(frozen=True)
class Knobs:
    """What may be tuned. A register tile is ``vectors`` panels by ``rows`` rows, with ``unroll`` steps of the reduction
    in one turn of its loop; the rows and the panels are split into so many parts, each pair of parts a task. A task
    goes through its panels for each tile of rows, so that it writes along the rows while its panels stay in a cache.
    """

    vectors: int
    rows: int
    row_parts: int
    panel_parts: int
    unroll: int = UNROLL


def choose_knobs(size: tuple[int, int, int], batch: int, width: int, vector: Vector, operand: DotOperand) -> Knobs:
    """Knobs for a product of ``size`` (m, n, steps), of which there are ``batch``, with panels of ``width`` columns."""
    m, n, k = size
    cost, panels = _tile_cost(k, vector, operand), -(-n // width)
    tile = _best_tile(cost, panels, m)
    return _knobs(size, batch, width, cost, (*tile, operand.unroll(vector)))


def _knobs(size: tuple[int, int, int], batch: int, width: int, cost: TileCost, point: Point) -> Knobs:
    """The knobs with a register tile and so many steps in a turn: tasks whose rows stay in a cache."""
    (m, n, k), (vectors, rows, unroll), panels = size, point, -(-size[1] // width)
    work = Work(
        cycles=cost.plane((panels, m), (vectors, rows)),
        lines=tile_count(cut(panels, vectors)),
        tiles=tile_count(cost.cut(m, rows)),
        data=4 * n * k,
        weights=4 * m * k,
        machine=cost.vector.machine,
    )
    panel_parts, row_parts = work.split(batch)
    return Knobs(vectors, rows, row_parts, panel_parts, unroll)


def space(size: tuple[int, int, int], batch: int, width: int, vector: Vector, operand: DotOperand) -> Space:
    """Every register tile that fits, with the usual steps in a turn, half and twice as many."""
    m, n, k = size
    cost, plane, usual = _tile_cost(k, vector, operand), (-(-n // width), m), operand.unroll(vector)
    unrolls = (usual, *(steps for steps in (usual // 2, 2 * usual) if steps))
    return Space(
        ("vectors", "rows", "unroll"),
        tuple((*tile, unroll) for unroll in unrolls for tile in tiles(cost, TALL_HEIGHTS, plane)),
        lambda point: _knobs(size, batch, width, cost, point),
        lambda point: batch * cost.plane(plane, (point[0], point[1])) * (1 if point[2] == usual else 1 + VARIANT_COST),
    )


def cycles(size: tuple[int, int, int], width: int, vector: Vector, operand: DotOperand) -> float:
    """Cycles by count, with those of copies, to compare operands by."""
    m, n, k = size
    cost, panels = _tile_cost(k, vector, operand), -(-n // width)
    copies = WORD_BYTES * m * k / COPY_RATE if operand.rows > 1 else 0
    return cost.plane((panels, m), _best_tile(cost, panels, m)) + copies


def _best_tile(cost: TileCost, panels: int, rows: int) -> tuple[int, int]:
    return cost.best_tile((panels, rows), TALL_HEIGHTS if rows < 4 else HEIGHTS)


def _tile_cost(steps: int, vector: Vector, operand: DotOperand) -> TileCost:
    """The cost of tiles whose rows of data lie one after the other, or in pairs that were copied."""
    return TileCost(vector, steps, operand=operand, stride=0 if operand.rows > 1 else operand.word_bytes * steps)


@dataclass(frozen=True)
class PanelProduct:
    """The loops of one product of ``size`` (m, n, k). ``data`` ``[M, K]`` has elements of the ``operand``, at ``place``
    in the outer dimensions; ``panel(number, step)`` reads a row of a panel, and ``finish(row, column, sums, lanes)``
    writes what came of a register. ``saturation`` ``[panels, steps]`` is not 0 where the operand's usual step could
    saturate; ``prefetch(number, step)`` fetches a row ahead where panels are weights."""

    size: tuple[int, int, int]
    operand: DotOperand
    width: int
    vector: Vector
    knobs: Knobs
    data: Buffer
    place: tuple[Expr, ...]
    panel: Callable[[Expr, Expr], Expr]
    finish: Callable[[Expr, Expr, Buffer, int], Stmt]
    saturation: Buffer | None = None
    prefetch: Callable[[Expr, Expr], Stmt] | None = None

    @cached_property
    def _cost(self) -> TileCost:
        return _tile_cost(self.operand.count(self.size[2]), self.vector, self.operand)

    def part(self, row_part: Expr, panel_part: Expr) -> Stmt:
        """The product of one part of the rows with one part of the panels."""
        runs = cut(self.size[1] // self.width, self.knobs.vectors)

        def panels(run: Run) -> Stmt:
            def line(row: Expr, rows: int, data: Buffer) -> Stmt:
                def tile(panel: Expr, vectors: int) -> Stmt:
                    return self._tile(row, panel, (vectors, rows), self.width, data)

                return each_tile_of(run, tile_count(runs), tile, panel_part, self.knobs.panel_parts)

            return self._rows(row_part, run.size, line)

        return block(*map(panels, runs), *self._last_panel(row_part, panel_part))

    def _last_panel(self, row_part: Expr, panel_part: Expr) -> list[Stmt]:
        """The panel that is not full belongs to the last part."""
        full, rest = divmod(self.size[1], self.width)
        if not rest:
            return []
        last = self._rows(row_part, 1, lambda row, rows, data: self._tile(row, full, (1, rows), rest, data))
        if self.knobs.panel_parts == 1:
            return [last]
        return [tirx.IfThenElse(tirx.EQ(panel_part, self.knobs.panel_parts - 1), last, None)]

    def _rows(self, part: Expr, vectors: int, body: Callable[[Expr, int, Buffer], Stmt]) -> Stmt:
        """Run ``body(first row, rows, data)`` for every tile of a part of the rows, for tiles of so many panels; the
        data is a copy of the tile's rows in pairs where steps take them so."""
        shape, cost, operand = (self.knobs.vectors, self.knobs.rows), self._cost, self.operand
        runs = cost.cut_scalars(vectors, shape, self.size[0])
        if operand.rows == 1:
            return each_tile(runs, lambda row, rows: body(row, rows, self.data), part, self.knobs.row_parts)
        count = -(-max(run.size for run in runs) // operand.rows)
        steps = operand.count(self.size[2]) // operand.rows
        pairs = scratch([count, steps, operand.rows * operand.depth], "pairs", operand.element)
        copy = PairedRows(pairs, self.data, self.place, self.size[2], operand)

        def tile(row: Expr, rows: int) -> Stmt:
            return block(copy.fill(row, rows), body(row, rows, pairs))

        return allocate([pairs], each_tile(runs, tile, part, self.knobs.row_parts))

    def _tile(self, row: Expr, panel: Expr, shape: tuple[int, int], lanes: int, data: Buffer) -> Stmt:
        operand = self.operand
        sums = operand.accumulators(*shape, self.width)
        words, rest = divmod(self.size[2], operand.elements)
        if operand.rows > 1:
            words, rest = operand.count(self.size[2]), 0
        taken = math.gcd(words, operand.words_per_step)
        mask = SaturationMask.of(self.saturation, panel, sums.vectors)
        passes = -(-self.size[0] // (shape[1] * self.knobs.row_parts))
        fetch = self.prefetch if prefetch_pays(passes, self.vector) else None

        def step(turn: Expr, is_masked: bool = False, held: Scalar | None = None) -> Stmt:
            places = [turn * taken + i for i in range(taken)]

            def factors(v: int, s: int) -> list[tuple[Expr, Expr]]:
                if held:
                    return [(self.panel(panel + v, turn), splat(held(s), self.width))]
                if operand.rows > 1:
                    pair, half = divmod(s, operand.rows)
                    return [(self.panel(panel + v, places[half]), operand.load_rows(data, [pair, turn, 0]))]
                return [(self.panel(panel + v, k), self._data(row + s, k)) for k in places]

            if mask and is_masked:
                return operand.step(self.vector, sums, factors, mask.any(turn))
            fetches = [fetch(panel + shape[0] + v, k) for v in range(shape[0]) for k in places] if fetch else []
            return block(*fetches, operand.step(self.vector, sums, factors))

        def last(v: int, s: int) -> list[tuple[Expr, Expr]]:
            element = operand.load_last(self.data, [*self.place, row + s, self.size[2] - 1])
            return [(self.panel(panel + v, words), splat(element, self.width))]

        def finish(v: int, s: int) -> Stmt:
            return self.finish(row + s, (panel + v) * self.width, sums.total(v, s), lanes)

        reduction = []
        if mask:
            reduction = [mask.each_turn(words // taken, 1, 0, step)]
        elif takes_rows(operand, self.vector) and words >= self.width:
            reduction = [self._by_rows(row, sums, words, step)]
        elif words:

            def some(first: Expr, count: int) -> Stmt:
                return unrolled(count, lambda turn: step(first + turn), self.knobs.unroll)

            reduction = [sums.in_parts(words // taken, taken, some)]
        reduction += [operand.step(self.vector, sums, last)] if rest else []
        return allocate(sums.memory, sums.clear(), *reduction, *sums.regroup(), sums.each(finish, shape[1]))

    def _by_rows(self, row: Expr, sums: Accumulators, words: int, step: Callable[..., Stmt]) -> Stmt:
        """So many steps, as many as there are lanes in a turn of a loop, with words by the register."""
        turns, rest = divmod(words, self.width)

        def turn(number: Expr) -> Stmt:
            first = number * self.width

            def words_of(s: int, k: int) -> Expr:
                return self.operand.load_words(self.data, [*self.place, row + s, first + k], WORDS)

            return by_rows(self.width, sums, self.operand, words_of, lambda k, held: step(first + k, held=held))

        whole = loop(turns, turn, name="turn")
        return block(whole, unrolled(rest, lambda k: step(turns * self.width + k))) if rest else whole

    def _data(self, row: Expr, k: Expr) -> Expr:
        """A word of the data in every lane."""
        return splat(self.operand.load(self.data, [*self.place, row, k]), self.width)
