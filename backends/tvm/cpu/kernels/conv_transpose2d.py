"""Transposed convolution over blocked channels.

An output row y is the sum over the taps k for which ``y + padding - k * dilation`` is a multiple of the stride, of
the input row at that multiple. So the outputs whose rows (and columns) have the same remainder by the stride form a
phase: a plain convolution of stride 1 with a subset of the taps, in which nothing is multiplied with a zero that was
put between two rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.cpu.convolutions import anchored, can_convolve, geometry, in_block
from lvc.backends.tvm.cpu.integer_layers import dot_operand
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import conv_nest
from lvc.backends.tvm.cpu.kernels.channels import Channels
from lvc.backends.tvm.cpu.kernels.conv_geometry import Geometry
from lvc.backends.tvm.cpu.kernels.conv_nest import ConvNest, Knobs
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand, widened
from lvc.backends.tvm.cpu.kernels.phases import Sweep
from lvc.backends.tvm.cpu.kernels.space import Space
from lvc.backends.tvm.cpu.stored_weight import StoredWeight
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.fused import take_apart, write_nest
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import is_call

aten = torch.ops.aten


@dataclass(frozen=True)
class ConvTranspose2d:
    """Data and result as for `Conv2d`. ``padding`` (top, left, bottom, right) cuts the result, ``output_padding`` adds
    rows below and columns on the right."""

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_block: int = 8
    out_block: int = 8
    operand: DotOperand = FLOAT32

    @cached_property
    def channels(self) -> Channels:
        """Its channels."""
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
        rows = [self._phase(0, i, self.height, self.out_height) for i in range(min(self.stride[0], self.out_height))]
        columns = [self._phase(1, i, self.width, self.out_width) for i in range(min(self.stride[1], self.out_width))]
        return Geometry(self.batch, self.channels, tuple((row, column) for row in rows for column in columns))

    def _outputs(self, axis: int, size: int) -> int:
        full = (size - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return full - self.padding[axis] - self.padding[axis + 2] + self.output_padding[axis]

    def _phase(self, axis: int, first: int, size: int, outputs: int) -> Sweep:
        stride, dilation = self.stride[axis], self.dilation[axis]
        start = first + self.padding[axis]
        taps = [k for k in range(self.kernel[axis]) if (start - k * dilation) % stride == 0]
        common = math.gcd(stride, dilation)
        begin = (start - taps[0] * dilation) // stride if taps else 0
        return Sweep(
            size=size,
            outputs=-(-(outputs - first) // stride),
            taps=len(taps),
            stride=1,
            dilation=-(dilation // common),
            begin=begin,
            out=(first, stride),
            tap=(taps[0] if taps else 0, stride // common),
        )


def compute(problem: ConvTranspose2d, data: Any, weight: Any) -> Any:
    """The transposed convolution as TE: data as the problem says, weight as `pack_weight` makes it."""
    p, channels = problem, problem.channels
    units, parts = te.reduce_axis((0, channels.span), "ci"), te.reduce_axis((0, channels.unit), "cl")
    ky, kx = te.reduce_axis((0, p.kernel[0]), "ky"), te.reduce_axis((0, p.kernel[1]), "kx")

    def read(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = tirx.floordiv(y, p.stride[0]), tirx.floordiv(x, p.stride[1])
        value = data[n, c, row, column, lane] if p.in_block else data[n, c, row, column]
        divides = tirx.all(tirx.floormod(y, p.stride[0]) == 0, tirx.floormod(x, p.stride[1]) == 0)
        inside = tirx.all(divides, row >= 0, row < p.height, column >= 0, column < p.width)
        return tirx.if_then_else(inside, value, tirx.const(0, data.dtype))

    def anchor(n: Any, o: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = y + p.padding[0] - ky * p.dilation[0], x + p.padding[1] - kx * p.dilation[1]
        block, part = channels.source(o, lane, units, parts)
        value = read(n, block, row, column, part)
        factor = p.operand.weight(weight, (o, units, ky, kx, parts, lane))
        return te.sum(widened(value) * factor, axis=[units, ky, kx, parts])

    shape = (p.batch, channels.out_blocks, p.out_height, p.out_width, p.out_block)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def packed_shape(problem: ConvTranspose2d) -> tuple[int, ...]:
    """The shape of the packed weights."""
    return problem.channels.packed_shape(problem.kernel)


def pack_weight(problem: ConvTranspose2d, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[C, O/groups, KH, KW]`` in the order of their use."""
    inputs, outputs = problem.channels.group
    grouped = weight.reshape(problem.groups, inputs, outputs, *problem.kernel)
    return problem.channels.pack(grouped.transpose(0, 2, 1, 3, 4).reshape(-1, inputs, *problem.kernel))


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For stored weights."""
    is_of_it = is_call(call.node, aten.conv_transpose2d.input) and call.dtype == "float32"
    if not (is_of_it and can_convolve(call)):
        return None
    values = call["weight"].constant
    problem = ConvTranspose2d(
        in_channels=len(values),
        out_channels=values.shape[1] * call["groups"],
        groups=call["groups"],
        output_padding=tuple(call["output_padding"]),
        in_block=in_block(call),
        out_block=call.layout.block,
        operand=dot_operand(call, vector),
        **geometry(call),
    )
    packed = StoredWeight(call, "weight", values, problem, packed_shape(problem), pack_weight).tensor()
    result = compute(problem, call.tensor("input"), packed)
    return anchored(call, result, KernelSchedule(schedule, problem), problem.operand)


def choose_knobs(problem: ConvTranspose2d, vector: Vector) -> Knobs:
    """The knobs of an untuned transposed convolution."""
    return conv_nest.choose_knobs(problem.geometry, vector)


def space(problem: ConvTranspose2d, vector: Vector) -> Space:
    """What the knobs may be."""
    return conv_nest.space(problem.geometry, vector)


def schedule(sch: Any, problem: ConvTranspose2d, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    write_nest(sch, ConvNest(problem.geometry, vector, knobs, take_apart(sch)).build())
