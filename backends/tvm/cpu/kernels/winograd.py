"""Convolution with 3x3, 3x1 or 1x3 taps by minimal filtering: fewer multiplications, in a domain that the data is
brought to.

The result is cut into tiles of m by m. Under each lie (m + 2) by (m + 2) elements of the data, which become as many
points, and where there is one tap along an axis it is m elements by m + 2 and as many points: tiles are one wide there.
At each point all tiles are multiplied with the weights over the channels, and the products become the tile.
Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import cache, cached_property
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.cpu.convolutions import anchored
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import conv2d
from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32
from lvc.backends.tvm.cpu.kernels.point_transform import Registers
from lvc.backends.tvm.cpu.kernels.space import Point, Space
from lvc.backends.tvm.cpu.kernels.winograd_cost import WinogradCost, plain_cycles
from lvc.backends.tvm.cpu.kernels.winograd_nest import Knobs, WinogradNest, data_shape
from lvc.backends.tvm.cpu.stored_weight import StoredWeight
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import parameter, take_apart, write_nest
from lvc.backends.tvm.nest import Expr, Stmt, allocate, grid, load, store, tasks
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import AsWritten
from lvc.backends.tvm.scope import Parameter, Prepared, Shared
from lvc.compiler.ir.cook_toom import KERNELS, PAIRS, CookToom
from lvc.compiler.ir.graph import WINOGRAD

MARGIN = 1.05  # by how much it must be better to be worth its memory
START = 30_000  # cycles that the code of three nests in place of one costs at first use


@dataclass(frozen=True)
class Winograd:
    """A convolution ``plain`` by tiles of ``tile`` outputs each way, or one where there is one tap. Its weights are
    prepared:
    ``[ceil(O/out_block), points * points, ceil(C/in_block), in_block, out_block]``."""

    plain: Conv2d
    tile: int

    @cached_property
    def channels(self) -> Channels:
        """Its channels."""
        return self.plain.channels

    @cached_property
    def transforms(self) -> tuple[CookToom, CookToom]:
        """What it does down and along the image."""
        return CookToom.both(self.tile, self.plain.kernel)

    @cached_property
    def points(self) -> int:
        """Points of a tile, both axes together."""
        return self.transforms[0].points * self.transforms[1].points

    @cached_property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles; those at the lower and right edge may be partly outside."""
        down, along = self.transforms
        return -(-self.plain.out_height // down.outputs), -(-self.plain.out_width // along.outputs)


def can_transform(problem: Conv2d) -> bool:
    """Whether a convolution has the form that minimal filtering is for, and data in blocks as wide as the result's."""
    p = problem
    is_small = p.kernel in KERNELS and p.stride == p.dilation == (1, 1) and p.groups == 1
    return is_small and p.in_block == p.out_block > 0 and p.operand == FLOAT32


def compute(problem: Winograd, data: Any, weight: Any) -> Any:
    """The convolution as TE, by its definition: with the taps that the prepared weights were made of."""
    down, along = problem.transforms

    def tap(y: int, x: int, read: Any) -> Any:
        factors = {(i, j): down.taps[y][i] * along.taps[x][j] for i, j in np.ndindex(down.points, along.points)}
        return sum(read(i * along.points + j) * factor for (i, j), factor in factors.items() if factor)

    def kernel(*axes: Any) -> Any:
        o, c, ky, kx, lane, out = axes
        value = tirx.const(0.0, "float32")
        for y, x in np.ndindex(*problem.plain.kernel):
            known = tap(y, x, lambda point: weight[o, point, c, lane, out])
            value = tirx.Select(tirx.all(tirx.EQ(ky, y), tirx.EQ(kx, x)), known, value)
        return value

    return conv2d.compute(problem.plain, data, te.compute(packed_shape(problem), kernel, name="taps"))


def packed_shape(problem: Winograd) -> tuple[int, ...]:
    """The shape of the stored weights: those of the plain convolution."""
    return conv2d.packed_shape(problem.plain)


def pack_weight(problem: Winograd, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C, KH, KW]`` in the order in which they are stored."""
    return conv2d.pack_weight(problem.plain, weight)


def prepared_shape(problem: Winograd) -> tuple[int, ...]:
    """The shape of the weights that the kernel reads."""
    channels = problem.channels
    return (channels.out_blocks, problem.points, channels.in_blocks, channels.lanes, channels.out_block)


@cache
def prepare_function(problem: Winograd) -> Any:
    """The TIR function that makes the prepared weights of the stored ones."""
    stored = tirx.decl_buffer(packed_shape(problem), "float32", "stored")
    prepared = tirx.decl_buffer(prepared_shape(problem), "float32", "prepared")
    channels, lanes = problem.channels, problem.channels.out_block
    (down, along), (height, width) = problem.transforms, problem.plain.kernel

    def expand(o: Expr, c: Expr, lane: Expr) -> Stmt:
        registers = Registers(lanes)

        def tap(y: int, x: int) -> Expr:
            return load(stored, [o, c, y, x, lane, 0], lanes)

        columns = [
            [registers.keep(v) for v in registers.to_points(down.weights, [tap(y, x) for y in range(height)])]
            for x in range(width)
        ]
        for i in range(down.points):
            row = registers.to_points(along.weights, [column[i] for column in columns])
            registers.statements += [
                store(prepared, value, [o, i * along.points + j, c, lane, 0], lanes) for j, value in enumerate(row)
            ]
        return allocate(registers.buffers, *registers.statements)

    body = tasks((channels.out_blocks,), lambda o: grid((channels.in_blocks, channels.lanes), lambda *i: expand(o, *i)))
    return tirx.PrimFunc([stored, prepared], body).with_attr("tirx.noalias", True)


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For convolutions in float32 that a pass allows it for, where it is expected to be fastest. Weights lie like those
    of the plain convolution, and are transformed when the model is loaded."""
    largest = call.node.meta.get(WINOGRAD, 0)
    plain = conv2d.problem_of(call, vector) if largest else None
    tile = choose_tile(plain, vector, largest) if plain else 0
    if plain is None or not tile:
        return None
    problem = Winograd(plain, tile)
    return filtered(call, problem, choose_knobs(problem, vector))


def filtered(call: Call, problem: Winograd, knobs: Knobs) -> Anchor:
    """A convolution by minimal filtering, whatever is expected of it."""
    if shape := shared_shape(problem, knobs):
        call.scope.parameter(shape, "float32", Shared(), "shared")
    weight = StoredWeight(call, "weight", call["weight"].constant, problem, packed_shape(problem), pack_weight)
    source = Parameter(te.placeholder(packed_shape(problem), "float32", "stored"), weight.source())
    prepared = Prepared(f"{weight.key} filtered", (source,), prepare_function(problem), AsWritten())
    packed = call.scope.parameter(prepared_shape(problem), "float32", prepared)
    return anchored(call, compute(problem, call.tensor("input"), packed), KernelSchedule(schedule, problem, knobs))


def schedule(sch: Any, problem: Winograd, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    fused = take_apart(sch, ("pad", "taps"))
    write_nest(sch, WinogradNest(problem, vector, knobs, fused, parameter(sch, "shared")).build())


def shared_shape(problem: Winograd, knobs: Knobs) -> tuple[int, ...] | None:
    """The shape of the transformed data that tasks share: ``[points * points, vectors, lanes]``; None if each task has
    its own."""
    if not knobs.together:
        return None
    rows, columns = problem.tiles
    return data_shape(problem, rows * columns)


@cache
def choose_knobs(problem: Winograd, vector: Vector) -> Knobs:
    """The knobs of an untuned convolution."""
    return WinogradCost(problem, vector).best()


def space(problem: Winograd, vector: Vector) -> Space:
    """Every register tile that fits with the rule's strips, and other strips with the tile that is best for them."""
    cost, rule = WinogradCost(problem, vector), choose_knobs(problem, vector)
    return Space(
        tuple(field.name for field in fields(Knobs)),
        tuple(dict.fromkeys(tuple(map(int, astuple(knobs))) for knobs in cost.variants(rule))),
        _knobs,
        lambda point: cost.cycles(_knobs(point)) * MARGIN + START,
    )


def _knobs(point: Point) -> Knobs:
    vectors, tiles, rows, chunk, together = point
    return Knobs(vectors, tiles, rows, chunk, bool(together))


@cache
def choose_tile(problem: Conv2d, vector: Vector, largest: int) -> int:
    """The tile with which minimal filtering is expected to be fastest; 0 if the plain convolution is."""
    if not can_transform(problem):
        return 0
    cycles = {0: plain_cycles(problem, vector)}
    for tile in (t for t in PAIRS if t <= largest):
        filtering = Winograd(problem, tile)
        cycles[tile] = WinogradCost(filtering, vector).cycles(choose_knobs(filtering, vector)) * MARGIN + START
    return min(cycles, key=cycles.__getitem__)
