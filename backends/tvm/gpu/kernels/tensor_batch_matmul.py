"""Products of matrices that are both made as the model runs, by the tensor cores: of halves, and of bytes."""

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
from lvc.backends.tvm.gpu.kernels.matmul import LEAST_ROWS
from lvc.backends.tvm.gpu.kernels.matrix_factors import PairOfBytes, matrix_factor
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import Size, choose_tile
from lvc.backends.tvm.gpu.kernels.warp_columns import ByteColumns, Columns, ShortColumns
from lvc.backends.tvm.gpu.kernels.warp_matrices import WarpMatrices
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES, WarpProduct
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import Launches, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class TensorBatchMatmul(WarpMatrices):
    """``[B, M, K]`` times ``[B, K, N]``."""

    batch: int

    @property
    def is_ragged(self) -> bool:
        """Whether the last step has more terms than there are."""
        return self.tile.steps(self.depth) * self.tile.parts * self.step > self.k


def compute(problem: TensorBatchMatmul, left: Any, right: Any) -> Any:
    """The products as TE."""
    p, k = problem, te.reduce_axis((0, problem.k), "k")
    zeros = (p.factor.zero, p.factor.second_zero) if isinstance(p.factor, PairOfBytes) else None

    def anchor(b: Any, i: Any, j: Any) -> Any:
        x, y = (p.factor.value(element.asobject()) for element in (left[b, i, k], right[b, k, j]))
        return te.sum((x - zeros[0]) * (y - zeros[1]) if zeros else x * y, axis=k)

    sums = te.compute((p.batch, p.m, p.n), anchor, name="anchor")
    return te.compute((p.batch, p.m, p.n), sums, name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For as many matrices on both sides, with enough rows and columns for a tile."""
    if not is_call(call.node, aten.matmul.default, integer.matmul):
        return None
    left, right = call["self"], call["other"]
    if min(len(left.shape), len(right.shape)) < 2 or left.shape[:-2] != right.shape[:-2]:
        return None
    is_same = call.in_memory("self") is call.in_memory("other")
    if is_same or left.constant is not None or right.constant is not None:
        return None
    (m, k), n, count = left.shape[-2:], right.shape[-1], math.prod(left.shape[:-2])
    factor = matrix_factor(call, gpu, k)
    if factor is None or min(m, n) < LEAST_ROWS:
        return None
    size = Size(m, n, -(-k // factor.elements), count)
    problem = TensorBatchMatmul(m, n, k, factor, choose_tile(gpu, factor, size, WARP_TILES), count)
    result = compute(problem, call.tensor("self", (count, m, k)), call.tensor("other", (count, k, n)))
    array = reshape_array(call.scope, call.scope.leaf(result, (count, m, n), PLAIN), call.shape)
    return Anchor(array, KernelSchedule(schedule, problem), (count, m, n))


def schedule(sch: Any, problem: TensorBatchMatmul, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.m // tile.rows), -(-p.n // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        part, matrix, column, row = place
        first = column * tile.columns, row * tile.rows
        return _Block(launches.gpu, p, fused, parts, part, matrix, *first, thread).body()

    launch_tiles(sch, tile, (p.batch, columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of one product, or of a part of its sums, from a row and a column on."""

    gpu: Gpu
    problem: TensorBatchMatmul
    fused: Fused
    parts: Buffer | None
    part: Expr
    matrix: Expr
    column: Expr
    row: Expr
    thread: Expr

    def body(self) -> Stmt:
        p = self.problem
        return WarpProduct(
            self.gpu,
            p.tile,
            p.factor,
            p.tile.steps(p.depth),
            self.thread,
            p.together,
            self.fetch_row,
            None,
            self.columns,
            self.finish,
            is_transposed=True,
            zeros=p.factor.zeros if isinstance(p.factor, PairOfBytes) else (0, 0),
        ).body()

    @property
    def columns(self) -> Columns:
        """How the second factor is loaded."""
        p, how = self.problem, (self.problem.tile.columns, self.problem.tile.threads, self.thread)
        if isinstance(p.factor, PairOfBytes):
            return ByteColumns(*how, p.factor.elements, p.factor.second, self.fetch_columns)
        return ShortColumns(*how, p.factor.elements, p.factor.data, self.fetch_columns)

    @property
    def first(self) -> Expr:
        """The first term."""
        p = self.problem
        return self.part * (p.tile.steps(p.depth) * p.step)

    def fetch_row(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """Terms of a row of the first factor."""
        p = self.problem
        whole, first = self.row + row, self.first + step * p.step + number * p.together
        conditions = [whole < p.m] if p.m % p.tile.rows else []
        place, most = [self.matrix, whole, first], p.k if p.is_ragged else None
        return _neighbours(into, self.fused.operands[0], place, conditions, most, p.factor.outside())

    def fetch_columns(self, term: Expr, column: Expr, into: Sink) -> Stmt:
        """Columns of a term of the second factor."""
        p = self.problem
        whole, first = self.first + term, self.column + column
        outside = p.factor.outside_second() if isinstance(p.factor, PairOfBytes) else p.factor.outside()
        conditions = [whole < p.k] if p.is_ragged else []
        place, most = [self.matrix, whole, first], p.n if p.n % p.tile.columns else None
        return _neighbours(into, self.fused.operands[1], place, conditions, most, outside)

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write two columns of a row, one by one where they may end within them."""
        p = self.problem
        whole, first = self.row + row, self.column + column
        is_row = [whole < p.m] if p.m % p.tile.rows else []

        def write(lanes: int, offset: int) -> Stmt:
            def total(lane: Expr) -> Expr:
                return load(sums, [*at[:-1], at[-1] + offset + lane])

            def place(lane: Expr) -> list[Expr]:
                return [self.matrix, whole, first + offset + lane]

            if self.parts is not None:
                return write_lanes(lanes, self.parts, lambda lane: [self.part, *place(lane)], total)
            return write_lanes(
                lanes, self.fused.output, place, lambda lane: self.fused.element(place(lane), total(lane))
            )

        if p.n % 2 == 0:
            conditions = [*is_row, *([first < p.n] if p.n % p.tile.columns else [])]
            return when(tirx.all(*conditions) if conditions else True, write(2, 0))
        return block(*(when(tirx.all(*is_row, first + lane < p.n), write(1, lane)) for lane in range(2)))


def _neighbours(  # noqa: PLR0917 - each says one thing of what is loaded
    into: Sink, source: Buffer, place: list[Expr], conditions: list[Expr], most: int | None, outside: Expr
) -> Stmt:
    """As many neighbours as go into a sink, where there are such under some conditions and before ``most``: at once
    where rows begin at whole vectors."""
    *outer, first = place

    def one(lane: int) -> Expr:
        inside = [*conditions, *([] if most is None else [first + lane < most])]
        found = load(source, [*outer, first + lane])
        return tirx.if_then_else(tirx.all(*inside), found, outside) if inside else found

    if int(source.shape[-1]) % into.lanes:
        return into.store([one(lane) for lane in range(into.lanes)])
    return into.copy_where([*conditions, *([] if most is None else [first < most])], source, place, outside)
