"""The product of a matrix with stored weights by the tensor cores: linear layers of many rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.matmul import LEAST_ROWS
from lvc.backends.tvm.gpu.kernels.matrix_factors import is_worth, matrix_factor
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import Size, choose_tile, padded_columns
from lvc.backends.tvm.gpu.kernels.warp_columns import StoredColumns
from lvc.backends.tvm.gpu.kernels.warp_matrices import WarpMatrices
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES, WarpProduct
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import Launches, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class TensorMatmul(WarpMatrices):
    """``[M, K]`` times ``[K, N]``, which is stored."""

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of the packed weights: steps, columns, elements of a step."""
        return self.tile.steps(self.depth) * self.tile.parts, padded_columns(self.tile, self.n), self.step


def pack_weight(problem: TensorMatmul, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[N, K]`` in the order of the steps."""
    p = problem
    steps, columns, step = p.weight_shape
    packed = np.zeros((columns, steps * step), p.factor.weight)
    packed[: p.n, : p.k] = p.factor.pack(weight)
    return np.ascontiguousarray(packed.reshape(columns, steps, step).swapaxes(0, 1))


def compute(problem: TensorMatmul, data: Any, weight: Any) -> Any:
    """The product as TE; ``weight`` as `pack_weight` makes it."""
    p, k = problem, te.reduce_axis((0, problem.k), "k")

    def anchor(i: Any, j: Any) -> Any:
        value = p.factor.value(data[i, k].asobject())
        return te.sum(value * p.factor.value(weight[k // p.step, j, k % p.step].asobject()), axis=k)

    sums = te.compute((p.m, p.n), anchor, name="anchor")
    return te.compute((p.m, p.n), sums, name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For many rows of an operand times a stored matrix, of elements that the tensor cores multiply."""
    if not is_call(call.node, aten.linear.default, integer.linear):
        return None
    values, rows = call["weight"].constant, math.prod(call["input"].shape[:-1])
    if values is None or values.ndim != 2 or call["input"].constant is not None or rows < LEAST_ROWS:
        return None
    (n, k) = values.shape
    factor = matrix_factor(call, gpu, k)
    if factor is None:
        return None
    size = Size(rows, n, -(-k // factor.elements))
    tile = choose_tile(gpu, factor, size, WARP_TILES)
    if not is_worth(gpu, factor, tile.cycles(gpu, factor, size), size):
        return None
    problem = TensorMatmul(rows, n, k, factor, tile)
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    source = Constant(key, lambda: pack_weight(problem, values))
    packed = call.scope.parameter(problem.weight_shape, factor.weight, source)
    result = compute(problem, call.tensor("input", (rows, k)), packed)
    total = reshape_array(call.scope, call.scope.leaf(result, (rows, n), PLAIN), call.shape)
    return Anchor(factor.corrected(call, total, -1), KernelSchedule(schedule, problem), (rows, n))


def schedule(sch: Any, problem: TensorMatmul, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.m // tile.rows), -(-p.n // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        part, column, row = place
        return _Block(launches.gpu, p, fused, parts, part, column * tile.columns, row * tile.rows, thread).body()

    launch_tiles(sch, tile, (columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of the result, or of a part of its sums, from a row and a column on."""

    gpu: Gpu
    problem: TensorMatmul
    fused: Fused
    parts: Buffer | None
    part: Expr
    column: Expr
    row: Expr
    thread: Expr

    @property
    def first(self) -> Expr:
        """The first step."""
        return self.part * self.problem.tile.steps(self.problem.depth)

    def body(self) -> Stmt:
        p = self.problem
        return WarpProduct(
            self.gpu,
            p.tile,
            p.factor,
            p.tile.steps(p.depth),
            self.thread,
            p.together,
            self.fetch,
            None,
            StoredColumns(
                p.tile.columns,
                p.tile.threads,
                self.thread,
                p.factor.elements,
                self.fused.operands[1],
                lambda step, column: [self.first + step, self.column + column],
            ),
            self.finish,
            is_transposed=True,
        ).body()

    def fetch(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """Neighbours of a row, at once where rows begin at whole vectors."""
        p, data, zero = self.problem, self.fused.operands[0], self.problem.factor.outside()
        whole, first = self.row + row, (self.first + step) * p.step + number * p.together
        conditions = [whole < p.m] if p.m % p.tile.rows else []
        is_ragged = p.weight_shape[0] * p.step > p.k

        def one(lane: int) -> Expr:
            inside = tirx.all(*conditions, first + lane < p.k)
            return tirx.if_then_else(inside, load(data, [whole, first + lane]), zero)

        if p.k % p.together:
            return into.store([one(lane) for lane in range(p.together)])
        conditions += [first < p.k] if is_ragged else []
        return into.copy_where(conditions, data, [whole, first], zero)

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write two columns of a row, one by one where they may end within them."""
        p = self.problem
        whole, first = self.row + row, self.column + column
        is_row = [whole < p.m] if p.m % p.tile.rows else []

        def write(lanes: int, offset: int) -> Stmt:
            def total(lane: Expr) -> Expr:
                return load(sums, [*at[:-1], at[-1] + offset + lane])

            def place(lane: Expr) -> list[Expr]:
                return [whole, first + offset + lane]

            def element(lane: Expr) -> Expr:
                return self.fused.element(place(lane), total(lane))

            if self.parts is None:
                return write_lanes(lanes, self.fused.output, place, element)
            return write_lanes(lanes, self.parts, lambda lane: [self.part, *place(lane)], total)

        if p.n % 2 == 0:
            conditions = [*is_row, *([first < p.n] if p.n % p.tile.columns else [])]
            return when(tirx.all(*conditions) if conditions else True, write(2, 0))
        return block(*(when(tirx.all(*is_row, first + lane < p.n), write(1, lane)) for lane in range(2)))
