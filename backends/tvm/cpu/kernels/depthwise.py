"""Depthwise convolution over blocked channels: each channel with windows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.cpu.convolutions import anchored, can_convolve, geometry
from lvc.backends.tvm.cpu.integer_layers import computes, is_exact_in_float32
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels.dot_operands import widened
from lvc.backends.tvm.cpu.kernels.integer_operands import centred
from lvc.backends.tvm.cpu.kernels.parts import row_parts
from lvc.backends.tvm.cpu.kernels.register_tile import cut
from lvc.backends.tvm.cpu.kernels.space import Point, Space, is_its_own
from lvc.backends.tvm.cpu.kernels.tile_cost import TILE_OVERHEAD
from lvc.backends.tvm.cpu.kernels.window_nest import Place, WindowNest
from lvc.backends.tvm.cpu.kernels.windows import Axis
from lvc.backends.tvm.cpu.stored_weight import StoredWeight
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import Fused, take_apart, write_nest
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, int32, load, store, tasks
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.operators import integer

TASK_ELEMENTS = 32 << 10  # multiply-adds, in vectors, that are worth a task
MOST_WINDOWS = 8  # of a channel: the code has a part for each

aten = torch.ops.aten


@dataclass(frozen=True)
class Depthwise:
    """Data ``[N, ceil(C/block), H, W, block]``, result ``[N, ceil(M*C/block), OH, OW, block]``, where each channel has
    M windows, its ``multiplier``, and as many results in order; ``padding`` is (top, left, bottom, right). Weights are
    float32, whatever the data is.

    With a ``zero_point`` the data has 8 bits and the result is int32: integers, summed in float32, which is exact
    below 2**24. That the weights stay below it is for the caller to prove.
    """

    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    block: int = 8
    zero_point: int | None = None
    multiplier: int = 1

    def number(self, element: Any) -> Any:
        """Elements of the data in float32."""
        return widened(element) if self.zero_point is None else centred(element, self.zero_point, "float32")

    @cached_property
    def blocks(self) -> int:
        """Blocks of the result; each reads one block of the data."""
        return -(-self.channels * self.multiplier // self.block)

    @cached_property
    def rows(self) -> Axis:
        """The windows down the image."""
        return _axis(self, 0, self.height)

    @cached_property
    def columns(self) -> Axis:
        """The windows across the image."""
        return _axis(self, 1, self.width)


def _axis(p: Depthwise, axis: int, size: int) -> Axis:
    reach = (p.kernel[axis] - 1) * p.dilation[axis] + 1
    outputs = (size + p.padding[axis] + p.padding[axis + 2] - reach) // p.stride[axis] + 1
    return Axis(size, outputs, p.kernel[axis], p.stride[axis], p.dilation[axis], p.padding[axis])


@dataclass(frozen=True)
class Knobs:
    """What may be tuned: pixels in a register tile, and the parts that the rows of one block are split into."""

    pixels: int
    row_parts: int


def compute(problem: Depthwise, data: Any, weight: Any) -> Any:
    """The convolution as TE: data as the problem says, weight as `pack_weight` makes it."""
    p = problem
    ky, kx = te.reduce_axis((0, p.kernel[0]), "ky"), te.reduce_axis((0, p.kernel[1]), "kx")

    def padded(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = y - p.padding[0], x - p.padding[1]
        inside = tirx.all(row >= 0, row < p.height, column >= 0, column < p.width)
        return tirx.if_then_else(inside, data[n, c, row, column, lane], tirx.const(p.zero_point or 0, data.dtype))

    source = data
    if any(p.padding):
        size = p.height + p.padding[0] + p.padding[2], p.width + p.padding[1] + p.padding[3]
        source = te.compute((p.batch, -(-p.channels // p.block), *size, p.block), padded, name="pad")

    def anchor(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        row = y * p.stride[0] + ky * p.dilation[0]
        column = x * p.stride[1] + kx * p.dilation[1]
        block, channel = tirx.floordiv(c, p.multiplier), tirx.floormod(c, p.multiplier) * p.block + lane
        value = source[n, block, row, column, tirx.floordiv(channel, p.multiplier)]
        return te.sum(p.number(value) * weight[c, ky, kx, lane], axis=[ky, kx])

    shape = (p.batch, p.blocks, p.rows.outputs, p.columns.outputs, p.block)
    sums = te.compute(shape, anchor, name="anchor")
    if p.zero_point is None:
        return te.compute(shape, sums, name="result")
    return te.compute(shape, lambda *i: tirx.Cast("int32", sums(*i)), name="result")


def packed_shape(problem: Depthwise) -> tuple[int, ...]:
    """The shape of the packed weights: ``[M*C/block, KH, KW, lanes]``."""
    return (problem.blocks, *problem.kernel, problem.block)


def pack_weight(problem: Depthwise, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[M*C, 1, KH, KW]`` in the order of their use, zeros past the last channel."""
    p = problem
    padded = np.zeros((p.blocks * p.block, *p.kernel), weight.dtype)
    padded[: len(weight)] = weight[:, 0]
    return np.ascontiguousarray(padded.reshape(p.blocks, p.block, *p.kernel).transpose(0, 2, 3, 1))


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For a few outputs of each channel, in integers where float32 holds their sums."""
    if not (computes(call, aten.conv2d.default, integer.conv2d) and can_convolve(call)):
        return None
    weight, channels = call["weight"], call["input"].shape[1]
    multiplier, rest = divmod(weight.shape[0], channels)
    if rest or multiplier > MOST_WINDOWS or not (call["groups"] == channels > 1 and is_exact_in_float32(call)):
        return None
    zero_point = call.operands.get("zero_point")
    problem = Depthwise(
        channels=channels, block=call.layout.block, zero_point=zero_point, multiplier=multiplier, **geometry(call)
    )
    values = weight.constant.astype(np.float32)
    packed = StoredWeight(call, "weight", values, problem, packed_shape(problem), pack_weight).tensor()
    return anchored(call, compute(problem, call.tensor("input"), packed), KernelSchedule(schedule, problem))


def choose_knobs(problem: Depthwise, vector: Vector) -> Knobs:
    """As many pixels as leave registers for one row of the weights and one element of the data; a few equal tasks."""
    p = problem
    work = p.batch * p.blocks * p.rows.outputs * p.columns.outputs * p.kernel[0] * p.kernel[1]
    pixels = cut(p.columns.outputs, _most_pixels(p, vector))[0].size
    return Knobs(pixels, row_parts(p.batch * p.blocks, p.rows.outputs, work / TASK_ELEMENTS, vector.machine.threads))


def _most_pixels(p: Depthwise, vector: Vector) -> int:
    return min(vector.registers - 2 - min(p.kernel[1], vector.registers // 2), p.columns.outputs)


def space(problem: Depthwise, vector: Vector) -> Space:
    """Every number of pixels for which there are registers."""
    p, rule = problem, choose_knobs(problem, vector)
    (height, width), machine = p.kernel, vector.machine

    def cycles(point: Point) -> float:
        """Of one row: bound by the arithmetic, the loads or the latency of a tile's chains."""

        def tile(size: int) -> float:
            loads = height * ((size - 1) * p.stride[1] + 2 * width)
            chains = height * width * max(size / machine.multiply_adds, machine.latency)
            return max(chains, loads / machine.loads) + TILE_OVERHEAD

        return sum(run.count * tile(run.size) for run in cut(p.columns.outputs, point[0]))

    sizes = range(1, _most_pixels(p, vector) + 1)
    points = tuple((pixels,) for pixels in sizes if is_its_own(cut(p.columns.outputs, pixels), pixels))
    return Space(("pixels",), points, lambda point: replace(rule, pixels=point[0]), cycles)


def schedule(sch: Any, problem: Depthwise, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    p, fused = problem, take_apart(sch)
    nests = [_nest(p, knobs, fused, rest) for rest in range(p.multiplier)]

    def task(image: Expr, channel: Expr, part: Expr) -> Stmt:
        return _by_rest(channel, [nest.task(image, channel, part) for nest in nests])

    write_nest(sch, tasks((p.batch, p.blocks, knobs.row_parts), task))


def _by_rest(number: Expr, cases: Sequence[Stmt]) -> Stmt:
    """The case that a number chooses by its rest."""
    chosen = cases[-1]
    for rest in reversed(range(len(cases) - 1)):
        chosen = tirx.IfThenElse(tirx.EQ(tirx.floormod(int32(number), len(cases)), int32(rest)), cases[rest], chosen)
    return chosen


def _nest(p: Depthwise, knobs: Knobs, fused: Fused, rest: int) -> WindowNest:
    """The nest of those blocks of the result whose number has a rest by the multiplier: they take the same lanes."""
    data, weight = fused.operands
    lanes = [(rest * p.block + lane) // p.multiplier for lane in range(p.block)]

    def read(place: Place) -> Expr:
        image, channel, *pixel = place
        if p.multiplier == 1:
            return p.number(load(data, [*place, 0], p.block))
        loaded = p.number(load(data, [image, tirx.floordiv(int32(channel), p.multiplier), *pixel, 0], p.block))
        return tirx.Shuffle([loaded], [int32(lane) for lane in lanes])

    def add(register: Buffer, value: Expr, channel: Expr, ky: Expr, kx: Expr) -> Stmt:
        product = value * load(weight, [channel, ky, kx, 0], p.block)
        return store(register, load(register, [0], p.block) + product, [0], p.block)

    return WindowNest(
        p.batch,
        p.blocks,
        p.block,
        p.rows,
        p.columns,
        knobs.pixels,
        knobs.row_parts,
        dtype="float32",
        identity=tirx.const(0, "float32"),
        read=read,
        add=add,
        finish=lambda place, register: fused.finish([*place, 0], register),
    )
