"""The product of a matrix with stored weights: linear layers of many rows. Few rows are sums by teams of threads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.factors import MOST_TERMS, SINGLE, WORD, Bytes, Factor
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import (
    SMALLEST,
    TILES,
    Size,
    Tile,
    choose_tile,
    padded_columns,
    padded_terms,
)
from lvc.backends.tvm.gpu.kernels.tile_product import TileProduct
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, when
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten
LEAST_ROWS = 8


@dataclass(frozen=True)
class Matmul:
    """``[M, K]`` times ``[K, N]``."""

    m: int
    n: int
    k: int
    factor: Factor = SINGLE
    tile: Tile = SMALLEST

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.k // self.factor.elements

    @property
    def together(self) -> int:
        """Terms that a thread loads at once: four where rows begin at whole vectors."""
        return QUAD if self.k % (QUAD * self.factor.elements) == 0 else 1

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of the packed weights: tiles, terms, columns of a tile."""
        tiles = padded_columns(self.tile, self.n) // self.tile.columns
        return tiles, padded_terms(self.tile, self.depth), self.tile.columns


def pack_weight(problem: Matmul, weight: np.ndarray) -> np.ndarray:
    """Weights ``[N, K]`` as terms of columns, with zeros around."""
    tiles, terms, columns = problem.weight_shape
    packed = np.zeros((terms, tiles * columns), problem.factor.dtype)
    packed[: problem.depth, : problem.n] = problem.factor.pack(np.ascontiguousarray(weight.T))
    return np.ascontiguousarray(packed.reshape(terms, tiles, columns).swapaxes(0, 1))


def compute(problem: Matmul, data: Any, weight: Any) -> Any:
    """The product as TE; ``weight`` as `pack_weight` makes it."""
    p, k = problem, te.reduce_axis((0, problem.depth), "k")
    zero = tirx.const(0, p.factor.dtype)

    def anchor(i: Any, j: Any) -> Any:
        term = p.factor.term(data[i, k * p.factor.elements].asobject())
        factor = weight[j // p.tile.columns, k, j % p.tile.columns].asobject()
        return te.sum(p.factor.product(term, factor, zero), axis=k)

    sums = te.compute((p.m, p.n), anchor, name="anchor")
    return te.compute((p.m, p.n), sums, name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For many rows of an operand times a stored matrix, in float32 or in integers."""
    is_integer = is_call(call.node, integer.linear)
    is_single = is_call(call.node, aten.linear.default) and call["input"].dtype == "float32"
    if not is_integer and (not is_single or multiplied_dtype(call.node)):
        return None
    values = call["weight"].constant
    rows = math.prod(call["input"].shape[:-1])
    if values is None or values.ndim != 2 or call["input"].constant is not None or rows < LEAST_ROWS:
        return None
    (n, k) = values.shape
    if is_integer and (k % WORD or k > MOST_TERMS):
        return None
    problem = Matmul(rows, n, k, Bytes.of(call) if is_integer else SINGLE)
    problem = replace(problem, tile=choose_tile(gpu, problem.factor, Size(rows, n, problem.depth), TILES))
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    source = Constant(key, lambda: pack_weight(problem, values))
    packed = call.scope.parameter(problem.weight_shape, problem.factor.dtype, source)
    result = compute(problem, call.tensor("input", (rows, k)), packed)
    total = reshape_array(call.scope, call.scope.leaf(result, (rows, n), PLAIN), call.shape)
    return Anchor(problem.factor.corrected(call, total, -1), KernelSchedule(schedule, problem), (rows, n))


def schedule(sch: Any, problem: Matmul, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.m // tile.rows), -(-p.n // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        part, column, row = place
        return _Block(launches.gpu, p, fused, parts, part, column, row * tile.rows, thread).body()

    launch_tiles(sch, tile, (columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of the result, or of a part of its sums: the so-manyth ``column`` of tiles, from a row on."""

    gpu: Gpu
    problem: Matmul
    fused: Fused
    parts: Buffer | None
    part: Expr
    column: Expr
    row: Expr
    thread: Expr

    def body(self) -> Stmt:
        p = self.problem
        return TileProduct(
            self.gpu,
            p.tile,
            p.tile.steps(p.depth),
            self.thread,
            p.together,
            self.fetch,
            None,
            self.fetch_columns,
            self.finish,
            is_transposed=True,
            factor=p.factor,
        ).body()

    @property
    def first(self) -> Expr:
        """The first term."""
        p = self.problem
        return self.part * (p.tile.steps(p.depth) * p.tile.step)

    def fetch(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """Terms of a row."""
        p = self.problem
        whole, term = self.row + row, self.first + step * p.tile.step + number * p.together
        conditions = [whole < p.m] if p.m % p.tile.rows else []
        conditions += [term < p.depth] if padded_terms(p.tile, p.depth) > p.depth else []
        place = [whole, term * p.factor.elements]
        return into.copy_where(conditions, self.fused.operands[0], place, p.factor.outside())

    def fetch_columns(self, term: Expr, column: Expr, into: Sink) -> Stmt:
        """Weights of a term."""
        return into.copy(self.fused.operands[1], [self.column, self.first + term, column])

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write four columns of a row, one by one where they may end within them."""
        p = self.problem
        whole, first = self.row + row, self.column * p.tile.columns + column
        is_row = [whole < p.m] if p.m % p.tile.rows else []

        def write(lanes: int, offset: int) -> Stmt:
            def total(lane: Expr) -> Expr:
                return load(sums, [at[0], at[1] + offset + lane])

            def place(lane: Expr) -> list[Expr]:
                return [whole, first + offset + lane]

            if self.parts is not None:
                return write_lanes(lanes, self.parts, lambda lane: [self.part, *place(lane)], total)
            return write_lanes(
                lanes, self.fused.output, place, lambda lane: self.fused.element(place(lane), total(lane))
            )

        if p.n % QUAD == 0:
            conditions = [*is_row, *([first < p.n] if p.n % p.tile.columns else [])]
            return when(tirx.all(*conditions) if conditions else True, write(QUAD, 0))
        singles = [when(tirx.all(*is_row, first + lane < p.n), write(1, lane)) for lane in range(QUAD)]
        return block(*singles)
