"""Convolution with 3x3, 3x1 or 1x3 taps by minimal filtering: fewer multiplications, in a domain that the data is
brought to.

The result is cut into tiles of m by m. Under each lie (m + 2) by (m + 2) elements of the data, which become as many
points, and where there is one tap along an axis it is m elements by m + 2 and as many points: tiles are one wide there.
At each point all tiles are multiplied with the weights over the channels, and the products become the tile.
Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from functools import cache, cached_property
from typing import Any

import numpy as np
from tvm import te, tirx

from lvc.backends.tvm.bfloat16 import narrow
from lvc.backends.tvm.cpu.convolutions import anchored
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import conv2d, conv_nest
from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, FLOAT32, DotOperand
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
    ``[ceil(O/out_block), points * points, units of a group, words, out_block]``."""

    plain: Conv2d
    tile: int

    @property
    def operand(self) -> DotOperand:
        """What is multiplied at the points, which data and weights are rounded to."""
        return self.plain.operand

    @property
    def steps(self) -> int:
        """Steps of the reduction at a point."""
        return self.channels.span * self.channels.words

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


def tiles_for(problem: Conv2d, vector: Vector, largest: int) -> tuple[int, ...]:
    """The tiles up to a ``largest`` by which a convolution can be done; none where it has not the form that minimal
    filtering is for, or data in other blocks than the result's. Of short numbers only bfloat16 is multiplied, where the
    processor has instructions for pairs of it and to round to it; none has those and multiplies matrices of it."""
    p, isa = problem, vector.isa
    is_small = p.kernel in KERNELS and p.stride == p.dilation == (1, 1)
    is_pair = p.operand == BFLOAT16 and BFLOAT16.name in isa.dots and isa.rounds_bfloat16
    is_known = p.operand == FLOAT32 or (is_pair and p.out_block == vector.lanes)
    if not (is_small and p.in_block == p.out_block > 0 and is_known and (p.groups == 1 or _lies_well(p, vector))):
        return ()
    return tuple(tile for tile in PAIRS if tile <= largest)


def _lies_well(problem: Conv2d, vector: Vector) -> bool:
    """Whether groups are whole blocks, or parts of blocks as wide as narrow vectors where those may be; of short
    numbers groups are not done."""
    channels, strips = problem.channels, problem.channels.result.strips
    if problem.operand != FLOAT32:
        return False
    if any(strip.is_shared for strip in strips):
        return conv_nest.is_narrow(channels, vector)
    return channels.unit == channels.lanes or not vector.isa.fenced


def compute(problem: Winograd, data: Any, weight: Any) -> Any:
    """The convolution as TE, by its definition: with the taps that the prepared weights were made of."""
    down, along = problem.transforms

    operand = problem.operand

    def tap(y: int, x: int, read: Any) -> Any:
        factors = {(i, j): down.taps[y][i] * along.taps[x][j] for i, j in np.ndindex(down.points, along.points)}
        return sum(read(i * along.points + j) * factor for (i, j), factor in factors.items() if factor)

    def kernel(*axes: Any) -> Any:
        o, c, ky, kx, word, out = axes

        def element(place: int) -> Any:
            value = tirx.const(0.0, "float32")
            for y, x in np.ndindex(*problem.plain.kernel):
                known = tap(y, x, lambda point: operand.value(weight[o, point, c, word, out].asobject(), place))
                value = tirx.Select(tirx.all(tirx.EQ(ky, y), tirx.EQ(kx, x)), known, value)
            return value if operand == FLOAT32 else narrow(value)

        return operand.join([element(place) for place in range(operand.elements)])

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
    return (channels.out_blocks, problem.points, channels.span, channels.words, channels.out_block)


@cache
def prepare_function(problem: Winograd, vector: Vector) -> Any:
    """The TIR function that makes the prepared weights of the stored ones."""
    operand = problem.operand
    stored = tirx.decl_buffer(packed_shape(problem), operand.packed, "stored")
    prepared = tirx.decl_buffer(prepared_shape(problem), operand.packed, "prepared")
    channels, lanes = problem.channels, problem.channels.out_block
    (down, along), (height, width) = problem.transforms, problem.plain.kernel

    def expand(o: Expr, c: Expr, word: Expr) -> Stmt:
        registers = Registers(lanes)

        def tap(y: int, x: int, place: int) -> Expr:
            return operand.value(load(stored, [o, c, y, x, word, 0], lanes), place)

        def rows(place: int) -> Iterator[list[Expr]]:
            taps = [[tap(y, x, place) for y in range(height)] for x in range(width)]
            columns = [[registers.keep(v) for v in registers.to_points(down.weights, column)] for column in taps]
            for i in range(down.points):
                yield registers.to_points(along.weights, [column[i] for column in columns])

        for i, elements in enumerate(zip(*map(rows, range(operand.elements)), strict=True)):
            for j, values in enumerate(zip(*elements, strict=True)):
                value = operand.join([operand.rounded(vector, registers.keep(value)) for value in values])
                place = [o, i * along.points + j, c, word, 0]
                registers.statements.append(store(prepared, value, place, lanes))
        return allocate(registers.buffers, *registers.statements)

    body = tasks((channels.out_blocks,), lambda o: grid((channels.span, channels.words), lambda *i: expand(o, *i)))
    return tirx.PrimFunc([stored, prepared], operand.around(body, vector)).with_attr("tirx.noalias", True)


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For convolutions in float32 that a pass allows it for, where it is expected to be fastest. Weights lie like those
    of the plain convolution, and are transformed when the model is loaded."""
    largest = call.node.meta.get(WINOGRAD, 0)
    plain = conv2d.problem_of(call, vector) if largest else None
    tile = choose_tile(plain, vector, largest) if plain else 0
    if plain is None or not tile:
        return None
    problem = Winograd(plain, tile)
    return filtered(call, problem, vector, choose_knobs(problem, vector))


def filtered(call: Call, problem: Winograd, vector: Vector, knobs: Knobs) -> Anchor:
    """A convolution by minimal filtering, whatever is expected of it."""
    if shape := shared_shape(problem, knobs):
        call.scope.parameter(shape, problem.operand.element, Shared(), "shared")
    weight = StoredWeight(call, "weight", call["weight"].constant, problem, packed_shape(problem), pack_weight)
    operand = problem.operand
    source = Parameter(te.placeholder(packed_shape(problem), operand.packed, "stored"), weight.source())
    prepared = Prepared(f"{weight.key} filtered", (source,), prepare_function(problem, vector), AsWritten())
    packed = call.scope.parameter(prepared_shape(problem), operand.packed, prepared)
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
    cycles = {0: plain_cycles(problem, vector)}
    for tile in tiles_for(problem, vector, largest):
        filtering = Winograd(problem, tile)
        cycles[tile] = WinogradCost(filtering, vector).cycles(choose_knobs(filtering, vector)) * MARGIN + START
    return min(cycles, key=cycles.__getitem__)
