"""Convolution as a product without a matrix of windows: rows are pixels of the result, terms are taps and channels, and
each block gathers its part of the windows as it needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.convolution import Convolution, convolution_of
from lvc.backends.tvm.gpu.kernels.factors import MOST_TERMS, SINGLE, Bytes, Factor
from lvc.backends.tvm.gpu.kernels.gather import Gather
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import (
    SMALLEST,
    STEP,
    TILES,
    Size,
    Tile,
    TileProduct,
    choose_tile,
    padded_columns,
    padded_terms,
)
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, local, when
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, load, store
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer


@dataclass(frozen=True)
class Conv2d(Convolution):
    """A convolution by tiles of threads."""

    factor: Factor = SINGLE
    tile: Tile = SMALLEST

    @property
    def depth(self) -> int:
        """Terms of a sum."""
        return self.products // self.factor.elements

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of the packed weights: groups, terms, results."""
        return self.groups, padded_terms(self.tile, self.depth), padded_columns(self.tile, self.group_filters)


def pack_weight(problem: Conv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of the terms."""
    p = problem
    packed = np.zeros(p.weight_shape, p.factor.dtype)
    packed[:, : p.depth, : p.filters // p.groups] = p.factor.pack(p.ordered(weight))
    return packed


def compute(problem: Conv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    p, term = problem, te.reduce_axis((0, problem.depth), "term")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        out = o * QUAD + lane
        group = out // p.group_filters
        inside, found = p.read(data, (n, y, x), group, term * p.factor.elements)
        value = tirx.if_then_else(inside, p.factor.term(found.asobject()), p.factor.outside())
        factor = weight[group, term, out % p.group_filters]
        return te.sum(p.factor.product(value, factor, tirx.const(0, p.factor.dtype)), axis=term)

    return te.compute(p.shape, te.compute(p.shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights in float32, or in integers."""
    whole, is_integer = convolution_of(call), is_call(call.node, integer.conv2d)
    if whole is None or multiplied_dtype(call.node) or (is_integer and whole.products > MOST_TERMS):
        return None
    factor: Factor = Bytes.of(call) if is_integer else SINGLE
    problem = Conv2d(**vars(whole), factor=factor)
    size = Size(whole.windows.pixels, whole.group_filters, problem.depth, whole.groups)
    return anchored(call, replace(problem, tile=choose_tile(gpu, factor, size, TILES)))


def anchored(call: Call, problem: Conv2d) -> Anchor:
    """The kernel of a call."""
    values = call["weight"].constant
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    packed = call.scope.parameter(
        problem.weight_shape, problem.factor.dtype, Constant(key, lambda: pack_weight(problem, values))
    )
    result = compute(problem, call.tensor("input"), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    return Anchor(problem.factor.corrected(call, total, 1), KernelSchedule(schedule, problem))


def schedule(sch: Any, problem: Conv2d, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.windows.pixels // tile.rows), -(-p.group_filters // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        corners = local([tile.rows * STEP // QUAD // tile.threads, 3], "corner", "int32")
        part, group, column, row = place
        return _Block(p, fused, parts, part, group, column * tile.columns, row * tile.rows, thread, corners).body()

    launch_tiles(sch, tile, (p.groups, columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of a group's result, or of a part of its sums, from a row and a column on. ``corners`` are the
    image, row and column where the windows of the rows begin that a thread loads."""

    problem: Conv2d
    fused: Fused
    parts: Buffer | None
    part: Expr
    group: Expr
    column: Expr
    row: Expr
    thread: Expr
    corners: Buffer

    @property
    def gather(self) -> Gather:
        p = self.problem
        data, quads = self.fused.operands[0], p.group_channels // QUAD
        return Gather(p.windows, data, self.corners, self.row, p.tile.rows, self.group, quads)

    def body(self) -> Stmt:
        p, tile = self.problem, self.problem.tile
        first = self.part * (tile.steps(p.depth) * STEP)
        fetch = self.fetch_blocked if p.is_blocked and p.factor.elements == 1 else self.fetch_terms
        product = TileProduct(
            tile,
            tile.steps(p.depth),
            self.thread,
            fetch,
            self.gather.prepare,
            self.fused.operands[1],
            lambda term, column: [self.group, first + term, self.column + column],
            self.finish,
            factor=p.factor,
        )
        return allocate([self.corners], product.body())

    def fetch_blocked(self, turn: int, step: Expr, quad: Expr, row: Expr, rows: Buffer) -> Stmt:
        """Four channels of one tap."""
        p = self.problem
        word = (self.part * p.tile.steps(p.depth) + step) * (STEP // QUAD) + quad
        most = p.depth // QUAD if padded_terms(p.tile, p.depth) > p.depth else None
        return self.gather.fetch_quad(turn, word, most, Sink(rows, [turn, 0], QUAD), p.factor.outside())

    def fetch_terms(self, turn: int, step: Expr, quad: Expr, row: Expr, rows: Buffer) -> Stmt:
        """Four terms, each by itself."""
        p, w, data = self.problem, self.problem.windows, self.fused.operands[0]

        def one(lane: int) -> Stmt:
            term = (self.part * p.tile.steps(p.depth) + step) * STEP + quad * QUAD + lane
            tap, channel = self.tap_and_channel(term)
            image, y, x = self.gather.tap(turn, tap)
            inside = tirx.all(w.is_inside(y, x), term < p.depth)
            index = [image, channel, y, x, 0] if p.is_blocked else [image, channel, y, x]
            value = tirx.if_then_else(inside, p.factor.term(load(data, index)), p.factor.outside())
            return store(rows, value, [turn, lane])

        return block(*(one(lane) for lane in range(QUAD)))

    def tap_and_channel(self, term: Expr) -> tuple[Expr, Expr]:
        """The tap of a term, and its channel of plain data or its block of channels."""
        p = self.problem
        if not p.is_blocked:
            return tirx.floormod(term, p.windows.taps), tirx.floordiv(term, p.windows.taps)
        words = p.group_channels // QUAD
        return tirx.floordiv(term, words), self.group * words + tirx.floormod(term, words)

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write four channels of a pixel."""
        p, w = self.problem, self.problem.windows
        pixel, channel = self.row + row, self.column + column
        index = p.index(pixel, self.group, channel)

        def total(lane: Expr) -> Expr:
            return load(sums, [at[0], at[1] + lane])

        def element(lane: Expr) -> Expr:
            return self.fused.element([*index, lane], total(lane))

        if self.parts is None:
            written = write_lanes(QUAD, self.fused.output, lambda lane: [*index, lane], element)
        else:
            written = write_lanes(QUAD, self.parts, lambda lane: [self.part, *index, lane], total)
        conditions = [pixel < w.pixels] if w.pixels % p.tile.rows else []
        conditions += [channel < p.group_filters] if p.group_filters % p.tile.columns else []
        return when(tirx.all(*conditions) if conditions else True, written)
