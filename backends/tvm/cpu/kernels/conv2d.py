"""Convolution over blocked channels, any stride, padding, dilation and groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.cpu.convolutions import anchored, can_convolve, geometry, in_block
from lvc.backends.tvm.cpu.integer_layers import computes, dot_operand, matrix_operand
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import conv_nest
from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.conv_geometry import Geometry
from lvc.backends.tvm.cpu.kernels.conv_nest import ConvNest, Knobs
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.cpu.kernels.phases import Phase, Sweep
from lvc.backends.tvm.cpu.kernels.space import Space
from lvc.backends.tvm.cpu.stored_weight import StoredWeight
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import SATURATION_MASK, parameter, take_apart, write_nest
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten

MOST_INSIDE = 0.8  # share of the taps inside the image up to which those outside are worth code for each side of it
MOST_COPIED = 1024  # pixels of an image that each task copies as one row, so that no row ends with half a pair
LEAST_PIXELS = 4  # in a row of outputs that have the same taps, for a register tile


@dataclass(frozen=True)
class Conv2d:
    """Data ``[N, ceil(C/in_block), H, W, in_block]``, or plain ``[N, C, H, W]`` where ``in_block`` is 0; result
    ``[N, ceil(O/out_block), OH, OW, out_block]``. ``padding`` is (top, left, bottom, right).

    Lanes past the last channel may hold any finite number in the data, and hold 0 in the result.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_block: int = 8
    out_block: int = 8
    operand: DotOperand = FLOAT32

    @cached_property
    def channels(self) -> Channels:
        """Its channels."""
        known, depth = self.stored, self.operand.depth
        if self.operand.rows == 1:
            return known
        return replace(known, in_block=depth, inputs=depth if self.taps > 1 else self.in_channels)

    @property
    def taps(self) -> int:
        """Neighbouring taps of a row that a step takes, where one block has all channels and a step takes more."""
        has_room = self.operand.rows > 1 and self.in_channels <= self.in_block < self.operand.depth
        return self.operand.depth // self.in_block if has_room and self.kernel[1] > 1 else 1

    @property
    def window(self) -> tuple[int, int]:
        """Steps along the taps."""
        return self.kernel[0], -(-self.kernel[1] // self.taps)

    @cached_property
    def stored(self) -> Channels:
        """Its channels as the data has them in memory, where the nest reads a copy in other blocks."""
        return Channels(self.in_channels, self.out_channels, self.groups, self.in_block, self.out_block, self.operand)

    @cached_property
    def out_height(self) -> int:
        """Rows of the result."""
        return self._outputs(0, self.height)

    @cached_property
    def out_width(self) -> int:
        """Columns of the result."""
        return self._outputs(1, self.width)

    @cached_property
    def geometry(self) -> Geometry:
        """What its nest needs to know."""
        is_flat = self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding)
        pixels, rows = self.height * self.width, self.operand.rows
        is_ragged = rows > 1 and self.width % rows > 0 and pixels <= MOST_COPIED
        if is_flat and (is_ragged or not self.operand.is_copied):  # else data is copied row by row
            phase = Sweep(1, 1, 1, 1, 1, 0), Sweep(pixels, pixels, 1, 1, 1, 0)
            return Geometry(self.batch, self.channels, (phase,), self.width)
        shift = self.dilation[1] if self.taps > 1 else 0
        phases = tuple(self._phases(self._sweep(0), self._sweep(1)))
        return Geometry(self.batch, self.channels, phases, shift=shift)

    def _phases(self, rows: Sweep, columns: Sweep) -> Iterator[Phase]:
        """The outputs that have the same taps inside the image, where many taps of a dilated window are outside; else
        all outputs with all taps, and a copy of the data with its padding."""
        pieces = rows.inside(), columns.inside()
        taps = [sum(piece.outputs * piece.taps for piece in along) for along in pieces]
        every = rows.outputs * rows.taps * columns.outputs * columns.taps
        if (
            self.operand.is_copied
            or not self.operand.is_zero_at_edges
            or max(self.dilation) == 1
            or math.prod(taps) > MOST_INSIDE * every
            or min(piece.outputs for piece in pieces[1]) < LEAST_PIXELS
        ):
            yield rows, columns
        else:
            yield from product(*pieces)

    def _outputs(self, axis: int, size: int) -> int:
        padded = size + self.padding[axis] + self.padding[axis + 2]
        return (padded - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    def _sweep(self, axis: int) -> Sweep:
        size, outputs = ((self.height, self.out_height), (self.width, self.out_width))[axis]
        dilation = self.dilation[axis] * (1, self.taps)[axis]
        return Sweep(size, outputs, self.window[axis], self.stride[axis], dilation, -self.padding[axis])


def compute(problem: Conv2d, data: Any, weight: Any) -> Any:
    """The convolution as TE: data as the problem says, weight as `pack_weight` makes it."""
    p, channels = problem, problem.stored
    top, left, *_ = p.padding
    units, parts = te.reduce_axis((0, channels.span), "ci"), te.reduce_axis((0, channels.unit), "cl")
    ky, kx = te.reduce_axis((0, p.kernel[0]), "ky"), te.reduce_axis((0, p.kernel[1]), "kx")

    def read(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        return data[n, c, y, x, lane] if p.in_block else data[n, c, y, x]

    def padded(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        inside = tirx.all(y >= top, y < p.height + top, x >= left, x < p.width + left)
        return tirx.if_then_else(
            inside, read(n, c, y - top, x - left, lane), tirx.const(p.operand.padding_value, data.dtype)
        )

    source: Callable[..., Any] = read
    if any(p.padding):
        height, width = p.height + top + p.padding[2], p.width + left + p.padding[3]
        source = te.compute((p.batch, channels.in_blocks, height, width, channels.lanes), padded, name="pad")

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = y * p.stride[0] + ky * p.dilation[0], x * p.stride[1] + kx * p.dilation[1]
        block, part = channels.source(o, lane, units, parts)
        value = source(n, block, row, column, part)
        if p.taps > 1:
            place = (o, 0, ky, tirx.floordiv(kx, p.taps), tirx.floormod(kx, p.taps) * p.in_block + parts, lane)
        else:
            outer, inner = p.channels.place_of(units, parts, channels)
            place = (o, outer, ky, kx, inner, lane)
        factor = p.operand.weight(weight, place)
        return te.sum(p.operand.factor(value) * factor, axis=[units, ky, kx, parts])

    shape = (p.batch, channels.out_blocks, p.out_height, p.out_width, p.out_block)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def packed_shape(problem: Conv2d) -> tuple[int, ...]:
    """The shape of the packed weights."""
    return problem.channels.packed_shape(problem.window)


def mask_shape(problem: Conv2d) -> tuple[int, ...]:
    """The shape of the saturation mask of packed weights: ``[out blocks, steps]``."""
    blocks, *inner, _ = packed_shape(problem)
    return (blocks, math.prod(inner) // problem.operand.words_per_step)


def pack_weight(problem: Conv2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[O, C/groups, KH, KW]`` in the order of their use."""
    if (taps := problem.taps) > 1:
        out, channels, height, width = weight.shape
        missing = (0, 0), (0, problem.in_block - channels), (0, 0), (0, -width % taps)
        steps = np.pad(weight, missing).reshape(out, problem.in_block, height, -1, taps)
        weight = steps.transpose(0, 4, 1, 2, 3).reshape(out, -1, height, steps.shape[3])
    return problem.channels.pack(weight)


def problem_of(call: Call, vector: Vector) -> Conv2d | None:
    """The problem of a call; None of one that it is not for."""
    if not (computes(call, aten.conv2d.default, integer.conv2d) and can_convolve(call)):
        return None
    values = call["weight"].constant
    problem = Conv2d(
        in_channels=call["input"].shape[1],
        out_channels=len(values),
        groups=call["groups"],
        in_block=in_block(call),
        out_block=call.layout.block,
        **geometry(call),
    )

    def pack(operand: DotOperand) -> np.ndarray:
        return pack_weight(replace(problem, operand=operand), values)

    problem = replace(problem, operand=dot_operand(call, vector, pack))
    matrix = matrix_operand(problem.operand, vector)
    if matrix is None or problem.groups > 1 or not problem.in_block or matrix.depth % problem.in_block:
        return problem
    choices = problem, replace(problem, operand=matrix)
    return min(choices, key=lambda choice: conv_nest.cycles(choice.geometry, vector))


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For stored weights."""
    problem = problem_of(call, vector)
    if problem is None:
        return None
    weight = StoredWeight(call, "weight", call["weight"].constant, problem, packed_shape(problem), pack_weight)
    weight.mask_saturation(mask_shape(problem))
    packed = weight.tensor()
    nest = problem if any(problem.padding) else replace(problem, operand=problem.operand.inside())
    result = compute(nest, call.tensor("input"), packed)
    return anchored(call, result, KernelSchedule(schedule, nest), problem.operand)


def choose_knobs(problem: Conv2d, vector: Vector) -> Knobs:
    """The knobs of an untuned convolution."""
    return conv_nest.choose_knobs(problem.geometry, vector)


def space(problem: Conv2d, vector: Vector) -> Space:
    """What the knobs may be."""
    return conv_nest.space(problem.geometry, vector)


def schedule(sch: Any, problem: Conv2d, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    mask = parameter(sch, SATURATION_MASK)
    write_nest(sch, ConvNest(problem.geometry, vector, knobs, take_apart(sch), mask).build())
