"""Products of matrices that are both made as the model runs, as attention has them, in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.factors import SINGLE, Factor
from lvc.backends.tvm.gpu.kernels.matmul import LEAST_ROWS
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import TILES, Size, Tile, choose_tile, padded_terms
from lvc.backends.tvm.gpu.kernels.tile_product import TileProduct
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import is_call

aten = torch.ops.aten


@dataclass(frozen=True)
class BatchMatmul:
    """``[B, M, K]`` times ``[B, K, N]``."""

    batch: int
    m: int
    n: int
    k: int
    tile: Tile
    factor: Factor = SINGLE

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.k

    @property
    def together(self) -> int:
        """Terms of a row that a thread loads at once: four where rows begin at whole vectors."""
        return QUAD if self.k % QUAD == 0 else 1


def compute(problem: BatchMatmul, left: Any, right: Any) -> Any:
    """The products as TE."""
    p, k = problem, te.reduce_axis((0, problem.k), "k")
    zero = tirx.const(0, p.factor.dtype)

    def anchor(b: Any, i: Any, j: Any) -> Any:
        return te.sum(p.factor.product(left[b, i, k].asobject(), right[b, k, j].asobject(), zero), axis=k)

    sums = te.compute((p.batch, p.m, p.n), anchor, name="anchor")
    return te.compute((p.batch, p.m, p.n), sums, name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For as many matrices on both sides, with enough rows and columns for a tile."""
    if not is_call(call.node, aten.matmul.default) or multiplied_dtype(call.node):
        return None
    left, right = call["self"], call["other"]
    if (left.dtype, right.dtype) != ("float32", "float32") or min(len(left.shape), len(right.shape)) < 2:
        return None
    *batch, m, k = left.shape
    n = right.shape[-1]
    is_same = call.in_memory("self") is call.in_memory("other")
    if list(right.shape[:-2]) != batch or is_same or left.constant is not None or right.constant is not None:
        return None
    if min(m, n) < LEAST_ROWS:
        return None
    count = math.prod(batch)
    problem = BatchMatmul(count, m, n, k, choose_tile(gpu, SINGLE, Size(m, n, k, count), TILES))
    result = compute(problem, call.tensor("self", (count, m, k)), call.tensor("other", (count, k, n)))
    array = reshape_array(call.scope, call.scope.leaf(result, (count, m, n), PLAIN), call.shape)
    return Anchor(array, KernelSchedule(schedule, problem), (count, m, n))


def schedule(sch: Any, problem: BatchMatmul, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.m // tile.rows), -(-p.n // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        part, matrix, column, row = place
        return _Block(
            launches.gpu, p, fused, parts, part, matrix, column * tile.columns, row * tile.rows, thread
        ).body()

    launch_tiles(sch, tile, (p.batch, columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of one product, or of a part of its sums, from a row and a column on."""

    gpu: Gpu
    problem: BatchMatmul
    fused: Fused
    parts: Buffer | None
    part: Expr
    matrix: Expr
    column: Expr
    row: Expr
    thread: Expr

    def body(self) -> Stmt:
        p = self.problem
        return TileProduct(
            self.gpu,
            p.tile,
            p.tile.steps(p.k),
            self.thread,
            p.together,
            self.fetch_row,
            None,
            self.fetch_columns,
            self.finish,
            is_transposed=True,
        ).body()

    @property
    def first(self) -> Expr:
        """The first term."""
        p = self.problem
        return self.part * (p.tile.steps(p.k) * p.tile.step)

    @property
    def is_ragged(self) -> bool:
        """Whether the last step has more terms than there are."""
        return padded_terms(self.problem.tile, self.problem.k) > self.problem.k

    def fetch_row(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """Terms of a row of the first factor."""
        p = self.problem
        whole, term = self.row + row, self.first + step * p.tile.step + number * p.together
        conditions = [whole < p.m] if p.m % p.tile.rows else []
        conditions += [term < p.k] if self.is_ragged else []
        return into.copy_where(conditions, self.fused.operands[0], [self.matrix, whole, term], SINGLE.outside())

    def fetch_columns(self, term: Expr, column: Expr, into: Sink) -> Stmt:
        """Four columns of a row of the second factor, at once where its rows begin at whole vectors."""
        p = self.problem
        whole, first = self.first + term, self.column + column
        conditions = [whole < p.k] if self.is_ragged else []

        def one(place: Sink, at: Expr) -> Stmt:
            inside = [*conditions, *([at < p.n] if p.n % p.tile.columns else [])]
            return place.copy_where(inside, self.fused.operands[1], [self.matrix, whole, at], SINGLE.outside())

        if p.n % QUAD == 0:
            return one(into, first)
        *outer, last = into.at
        return block(
            *(one(Sink(into.buffer, [*outer, last + lane], 1, into.is_ahead), first + lane) for lane in range(QUAD))
        )

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write four columns of a row, one by one where they may end within them."""
        p = self.problem
        whole, first = self.row + row, self.column + column
        is_row = [whole < p.m] if p.m % p.tile.rows else []

        def write(lanes: int, offset: int) -> Stmt:
            def total(lane: Expr) -> Expr:
                return load(sums, [at[0], at[1] + offset + lane])

            def place(lane: Expr) -> list[Expr]:
                return [self.matrix, whole, first + offset + lane]

            if self.parts is not None:
                return write_lanes(lanes, self.parts, lambda lane: [self.part, *place(lane)], total)
            return write_lanes(
                lanes, self.fused.output, place, lambda lane: self.fused.element(place(lane), total(lane))
            )

        def under(conditions: list[Expr], body: Stmt) -> Stmt:
            return when(tirx.all(*conditions) if conditions else True, body)

        if p.n % QUAD == 0:
            return under([*is_row, *([first < p.n] if p.n % p.tile.columns else [])], write(QUAD, 0))
        return block(*(under([*is_row, first + lane < p.n], write(1, lane)) for lane in range(QUAD)))
