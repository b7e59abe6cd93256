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
    TILES,
    Size,
    Tile,
    choose_tile,
    padded_columns,
    padded_terms,
    row_kinds,
)
from lvc.backends.tvm.gpu.kernels.tile_product import TileProduct
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, local, when
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, load
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
    def together(self) -> int:
        """Terms that a thread loads at once: words of bytes lie in different blocks of channels."""
        return QUAD if self.is_blocked and self.factor.elements == 1 else 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The shape of the packed weights: groups, tiles, terms, columns of a tile."""
        tiles = padded_columns(self.tile, self.group_filters) // self.tile.columns
        return self.groups, tiles, padded_terms(self.tile, self.depth), self.tile.columns


def pack_weight(problem: Conv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of the terms."""
    p = problem
    groups, tiles, terms, columns = p.weight_shape
    packed = np.zeros((groups, terms, tiles * columns), p.factor.dtype)
    ordered = p.factor.pack(p.ordered(weight))
    packed[:, : p.depth, : ordered.shape[-1]] = ordered
    return np.ascontiguousarray(packed.reshape(groups, terms, tiles, columns).swapaxes(1, 2))


def compute(problem: Conv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    p, term = problem, te.reduce_axis((0, problem.depth), "term")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        group, column, *place = p.made_of(o * QUAD + lane, y, x)
        inside, found = p.read(data, (n, *place), group, term * p.factor.elements)
        value = tirx.if_then_else(inside, p.factor.term(found.asobject()), p.factor.outside())
        factor = weight[group, column // p.tile.columns, term, column % p.tile.columns]
        return te.sum(p.factor.product(value, factor, tirx.const(0, p.factor.dtype)), axis=term)

    return te.compute(p.shape, te.compute(p.shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights in float32, or in integers; transposed ones too."""
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
        corners = local([row_kinds(tile, p.together), 3], "corner", "int32")
        part, group, column, row = place
        return _Block(launches.gpu, p, fused, parts, part, group, column, row * tile.rows, thread, corners).body()

    launch_tiles(sch, tile, (p.groups, columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of a group's result, or of a part of its sums: the so-manyth ``column`` of tiles, from a row
    on. ``corners`` are the image, row and column where the windows of the rows begin that a thread loads."""

    gpu: Gpu
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
        product = TileProduct(
            self.gpu,
            tile,
            tile.steps(p.depth),
            self.thread,
            p.together,
            self.fetch_quad if p.is_blocked else self.fetch_term,
            self.gather.prepare,
            self.fetch_columns,
            self.finish,
            factor=p.factor,
        )
        return allocate([self.corners], product.body())

    @property
    def first(self) -> Expr:
        """The first term."""
        p = self.problem
        return self.part * (p.tile.steps(p.depth) * p.tile.step)

    def corner(self, turn: int) -> int:
        """Which of the corners is that of the row that a thread loads in a turn."""
        return turn % row_kinds(self.problem.tile, self.problem.together)

    def fetch_quad(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """Four channels of one tap: four terms in float32, one of bytes."""
        p = self.problem
        quad = tirx.floordiv(self.first, p.together) + step * (p.tile.step // p.together) + number
        most = p.depth // p.together if padded_terms(p.tile, p.depth) > p.depth else None
        return self.gather.fetch_quad(self.corner(turn), quad, most, into, p.factor.outside())

    def fetch_columns(self, term: Expr, column: Expr, into: Sink) -> Stmt:
        """Weights of a term."""
        return into.copy(self.fused.operands[1], [self.group, self.column, self.first + term, column])

    def fetch_term(self, turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
        """One term of plain data."""
        p, taps = self.problem, self.problem.windows.taps
        term = self.first + step * p.tile.step + number
        image, y, x = self.gather.tap(self.corner(turn), tirx.floormod(term, taps))
        inside = [p.windows.is_inside(y, x), term < p.depth]
        place = [image, tirx.floordiv(term, taps), *p.windows.source(y, x)]
        return into.copy_where(inside, self.gather.data, place, p.factor.outside())

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write four channels of a pixel."""
        p, w = self.problem, self.problem.windows
        pixel, channel = self.row + row, self.column * p.tile.columns + column
        index, conditions = p.index(pixel, self.group, channel)

        def total(lane: Expr) -> Expr:
            return load(sums, [at[0], at[1] + lane])

        def element(lane: Expr) -> Expr:
            return self.fused.element([*index, lane], total(lane))

        if self.parts is None:
            written = write_lanes(QUAD, self.fused.output, lambda lane: [*index, lane], element)
        else:
            written = write_lanes(QUAD, self.parts, lambda lane: [self.part, *index, lane], total)
        conditions += [pixel < w.pixels] if w.pixels % p.tile.rows else []
        conditions += [channel < p.group_filters] if p.group_filters % p.tile.columns else []
        return when(tirx.all(*conditions) if conditions else True, written)
