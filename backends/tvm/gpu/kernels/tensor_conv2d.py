"""Convolution by the tensor cores, as a product without a matrix of windows: rows are pixels of the result, terms are
words of taps and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.convolution import Convolution, convolution_of
from lvc.backends.tvm.gpu.kernels.gather import Gather
from lvc.backends.tvm.gpu.kernels.matrix_factors import MatrixFactor, is_worth, matrix_factor
from lvc.backends.tvm.gpu.kernels.parts import launch_tiles
from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.tile import Size, choose_tile, padded_columns
from lvc.backends.tvm.gpu.kernels.warp_columns import WORDS, StoredColumns
from lvc.backends.tvm.gpu.kernels.warp_tile import WARP_TILES, WarpProduct, WarpTile, turns
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, local, when
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, load
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant


@dataclass(frozen=True)
class TensorConv2d(Convolution):
    """A convolution by tiles of warps."""

    factor: MatrixFactor
    tile: WarpTile

    @property
    def depth(self) -> int:
        """Words of a sum."""
        return -(-self.products // self.factor.elements)

    @property
    def step(self) -> int:
        """Elements of a step."""
        return WORDS * self.factor.elements

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The shape of the packed weights: groups, steps, results, elements of a step."""
        steps = self.tile.steps(self.depth) * self.tile.parts
        return self.groups, steps, padded_columns(self.tile, self.group_filters), self.step


def pack_weight(problem: TensorConv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of the steps."""
    p = problem
    groups, steps, columns, step = p.weight_shape
    packed = np.zeros((groups, steps * step, columns), p.factor.weight)
    ordered = p.factor.pack(p.ordered(weight))
    packed[:, : p.products, : ordered.shape[-1]] = ordered
    return np.ascontiguousarray(packed.reshape(groups, steps, step, columns).swapaxes(2, 3))


def compute(problem: TensorConv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    p, element = problem, te.reduce_axis((0, problem.products), "element")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        group, column, *place = p.made_of(o * QUAD + lane, y, x)
        inside, found = p.read(data, (n, *place), group, element)
        value = p.factor.value(tirx.if_then_else(inside, found.asobject(), p.factor.outside()))
        stored = weight[group, element // p.step, column, element % p.step]
        return te.sum(value * p.factor.value(stored.asobject()), axis=element)

    return te.compute(p.shape, te.compute(p.shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights, of elements that the tensor cores multiply."""
    whole = convolution_of(call)
    factor = None if whole is None else matrix_factor(call, gpu, whole.products)
    if whole is None or factor is None:
        return None
    size = Size(whole.windows.pixels, whole.group_filters, -(-whole.products // factor.elements), whole.groups)
    tile = choose_tile(gpu, factor, size, WARP_TILES)
    if not is_worth(gpu, factor, tile.cycles(gpu, factor, size), size):
        return None
    problem, values = TensorConv2d(**vars(whole), factor=factor, tile=tile), call["weight"].constant
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    source = Constant(key, lambda: pack_weight(problem, values))
    packed = call.scope.parameter(problem.weight_shape, factor.weight, source)
    total = call.scope.leaf(compute(problem, call.tensor("input"), packed), call.shape, call.layout)
    return Anchor(factor.corrected(call, total, 1), KernelSchedule(schedule, problem))


def schedule(sch: Any, problem: TensorConv2d, launches: Launches) -> None:
    """Write the launches of the fused function."""
    p, tile = problem, problem.tile
    rows, columns = -(-p.windows.pixels // tile.rows), -(-p.group_filters // tile.columns)

    def body(fused: Fused, parts: Buffer | None, place: list[Expr], thread: Expr) -> Stmt:
        part, group, column, row = place
        first = column * tile.columns, row * tile.rows
        return _Block(launches.gpu, p, fused, parts, part, group, *first, thread).body()

    launch_tiles(sch, tile, (p.groups, columns, rows), launches, body)


@dataclass(frozen=True)
class _Block:
    """One block: a tile of a group's result, or of a part of its sums, from a row and a column on."""

    gpu: Gpu
    problem: TensorConv2d
    fused: Fused
    parts: Buffer | None
    part: Expr
    group: Expr
    column: Expr
    row: Expr
    thread: Expr

    def body(self) -> Stmt:
        p, tile = self.problem, self.problem.tile
        corners = local([turns(tile, p.factor, QUAD), 3], "corner", "int32")
        quads = p.group_channels // QUAD
        gather = Gather(p.windows, self.fused.operands[0], corners, self.row, tile.rows, self.group, quads)
        first = self.part * tile.steps(p.depth)

        def fetch(turn: int, step: Expr, number: Expr, row: Expr, into: Sink) -> Stmt:
            quad = (first + step) * (p.step // QUAD) + number
            if p.is_blocked:
                return gather.fetch_quad(turn, quad, self.most(QUAD), into, p.factor.outside())
            return into.store([self.element(gather, turn, quad * QUAD + lane) for lane in range(QUAD)])

        product = WarpProduct(
            self.gpu,
            tile,
            p.factor,
            tile.steps(p.depth),
            self.thread,
            QUAD,
            fetch,
            gather.prepare,
            StoredColumns(
                tile.columns,
                tile.threads,
                self.thread,
                p.factor.elements,
                self.fused.operands[1],
                lambda step, column: [self.group, first + step, self.column + column],
            ),
            self.finish,
        )
        return allocate([corners], product.body())

    def most(self, together: int) -> int | None:
        """How many times so many products a sum has, where the last step has more."""
        p = self.problem
        return p.products // together if p.weight_shape[1] * p.step > p.products else None

    def element(self, gather: Gather, turn: int, element: Expr) -> Expr:
        """One element of plain data."""
        p, taps = self.problem, self.problem.windows.taps
        image, y, x = gather.tap(turn, tirx.floormod(element, taps))
        inside, most = p.windows.is_inside(y, x), self.most(1)
        inside = inside if most is None else tirx.all(inside, element < most)
        found = load(gather.data, [image, tirx.floordiv(element, taps), *p.windows.source(y, x)])
        return tirx.if_then_else(inside, found, p.factor.outside())

    def finish(self, row: Expr, column: Expr, sums: Buffer, at: list[Any]) -> Stmt:
        """Write two channels of a pixel."""
        p, tile = self.problem, self.problem.tile
        pixel, channel = self.row + row, self.column + column
        (index, conditions), first = p.index(pixel, self.group, channel), tirx.floormod(channel, QUAD)

        def place(lane: Expr) -> list[Expr]:
            return [*index, first + lane]

        def total(lane: Expr) -> Expr:
            return load(sums, [*at[:-1], at[-1] + lane])

        def element(lane: Expr) -> Expr:
            return self.fused.element(place(lane), total(lane))

        if self.parts is None:
            written = write_lanes(2, self.fused.output, place, element)
        else:
            written = write_lanes(2, self.parts, lambda lane: [self.part, *place(lane)], total)
        conditions += [pixel < p.windows.pixels] if p.windows.pixels % tile.rows else []
        conditions += [channel < p.group_filters] if p.group_filters % tile.columns else []
        return when(tirx.all(*conditions) if conditions else True, written)
