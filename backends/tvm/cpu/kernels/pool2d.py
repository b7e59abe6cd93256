"""Maximum and average pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from tvm import te, tirx

from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels.dot_operands import widened
from lvc.backends.tvm.cpu.kernels.integer_operands import centred
from lvc.backends.tvm.cpu.kernels.parts import row_parts
from lvc.backends.tvm.cpu.kernels.register_tile import cut
from lvc.backends.tvm.cpu.kernels.space import Space, is_its_own
from lvc.backends.tvm.cpu.kernels.window_nest import WindowNest
from lvc.backends.tvm.cpu.kernels.windows import Axis
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.extremes import larger, largest, lowest
from lvc.backends.tvm.fused import Fused, take_apart, write_nest
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, load, store
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.short_floats import is_short
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

TASK_ELEMENTS = 32 << 10  # taps, in vectors, that are worth a task
PIXELS = 4  # outputs in a register tile: the taps are loads, so there is little to gain from more


aten = torch.ops.aten


@dataclass(frozen=True)
class Pool2d:
    """Pooling of ``[N, ceil(C/block), H, W, block]``, or of plain ``[N, C, H, W]`` where ``block`` is 0.

    ``kind`` is "max", "avg", or "sum" for the int32 sums of ``q - zero_point``, of data of 8 bits. ``out_height`` and
    ``out_width`` are given, since rounding up may add windows. An average divides by ``divisor`` if there is one, else
    by the taps inside the image, with ``count_include_pad`` those in its padding too.
    """

    kind: str
    batch: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    count_include_pad: bool = True
    divisor: int | None = None
    block: int = 8
    zero_point: int = 0

    @cached_property
    def rows(self) -> Axis:
        """The windows down the image."""
        return _axis(self, 0, self.height, self.out_height)

    @cached_property
    def columns(self) -> Axis:
        """The windows across the image."""
        return _axis(self, 1, self.width, self.out_width)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        if not self.block:
            return (self.batch, self.channels, self.out_height, self.out_width)
        return (self.batch, -(-self.channels // self.block), self.out_height, self.out_width, self.block)


def _axis(p: Pool2d, axis: int, size: int, outputs: int) -> Axis:
    return Axis(size, outputs, p.kernel[axis], p.stride[axis], p.dilation[axis], p.padding[axis])


@dataclass(frozen=True)
class Knobs:
    """What may be tuned: pixels in a register tile, and the parts that the rows of one block are split into."""

    pixels: int
    row_parts: int


def compute(problem: Pool2d, data: Any) -> Any:
    """The pooling as TE: its anchor finds the maximum or the sum, the stage after it divides."""
    p = problem
    ky, kx = te.reduce_axis((0, p.kernel[0]), "ky"), te.reduce_axis((0, p.kernel[1]), "kx")
    identity = _identity(p, _dtype(p, data))

    def anchor(*place: Any) -> Any:
        n, c, y, x, *lane = place
        row, column = p.rows.position(y, ky), p.columns.position(x, kx)
        inside = tirx.all(row >= 0, row < p.height, column >= 0, column < p.width)
        value = tirx.if_then_else(inside, _number(p, data[(n, c, row, column, *lane)]), identity)
        return largest(value, axis=[ky, kx]) if p.kind == "max" else te.sum(value, axis=[ky, kx])

    total = te.compute(p.shape, anchor, name="anchor")
    if p.kind != "avg":
        return te.compute(p.shape, total, name="result")
    return te.compute(p.shape, lambda *i: total(*i) * _reciprocal(p, i[2], i[3], _dtype(p, data)), name="result")


def _number(p: Pool2d, element: Any) -> Expr:
    """Elements of the data in the type in which windows are reduced."""
    return centred(element, p.zero_point) if p.kind == "sum" else widened(element)


def _dtype(p: Pool2d, data: Any) -> str:
    """The type in which windows of the data are reduced."""
    if p.kind == "sum":
        return "int32"
    return "float32" if is_short(str(data.dtype)) else str(data.dtype)


def _identity(p: Pool2d, dtype: str) -> Expr:
    return lowest(dtype) if p.kind == "max" else tirx.const(0, dtype)


def _reciprocal(p: Pool2d, row: Any, column: Any, dtype: str) -> Any:
    """One over the number that the sum of a window is divided by."""
    if p.divisor is not None:
        return tirx.const(1 / p.divisor, dtype)
    counts = [_count(p, axis, place) for axis, place in ((0, row), (1, column))]
    if all(isinstance(count, int) for count in counts):
        return tirx.const(1 / (counts[0] * counts[1]), dtype)
    return tirx.const(1, dtype) / (counts[0] * counts[1]).astype(dtype)


def _count(p: Pool2d, axis: int, output: Any) -> Any:
    """Taps of a window along one axis that count; with the padding, those past its far end still do not."""
    windows = (p.rows, p.columns)[axis]
    if not p.count_include_pad:
        return windows.taps(output)[1]
    room = windows.size + windows.before + p.padding[axis + 2]
    if (windows.outputs - 1) * windows.stride + windows.kernel <= room:
        return windows.kernel
    return tirx.min(windows.kernel, room - output * windows.stride)


def anchor(call: Call, vector: Vector) -> Anchor | None:
    """For images that lie as their result does."""
    if is_call(call.node, integer.sum_pool2d):
        return _pooled(call, "q", kind="sum", zero_point=call["zero_point"])
    is_max = is_call(call.node, aten.max_pool2d.default) and call.dtype in ("float32", "uint8", "int8")
    is_average = is_call(call.node, aten.avg_pool2d.default) and call.dtype == "float32"
    if not (is_max or is_average) or len(call.shape) != 4:
        return None
    return _pooled(
        call,
        "self",
        kind="max" if is_max else "avg",
        dilation=tuple(call.operands.get("dilation", (1, 1))),
        count_include_pad=call.operands.get("count_include_pad", True),
        divisor=call.operands.get("divisor_override"),
    )


def _pooled(call: Call, name: str, **how: Any) -> Anchor | None:
    if call.layout_of(name) != call.layout:
        return None
    n, c, height, width = call[name].shape
    ph, pw = call["padding"]
    problem = Pool2d(
        batch=n,
        channels=c,
        height=height,
        width=width,
        out_height=call.shape[2],
        out_width=call.shape[3],
        kernel=tuple(call["kernel_size"]),
        stride=tuple(call["stride"]),
        padding=(ph, pw, ph, pw),
        block=call.layout.block,
        **how,
    )
    array = call.scope.leaf(compute(problem, call.tensor(name)), call.shape, call.layout)
    return Anchor(array, KernelSchedule(schedule, problem))


def choose_knobs(problem: Pool2d, vector: Vector) -> Knobs:
    """A few pixels at once; a few equal tasks."""
    p = problem
    outer = p.batch * p.shape[1]
    work = outer * p.out_height * p.out_width * p.kernel[0] * p.kernel[1]
    return Knobs(
        cut(p.out_width, PIXELS)[0].size, row_parts(outer, p.out_height, work / TASK_ELEMENTS, vector.machine.threads)
    )


def space(problem: Pool2d, vector: Vector) -> Space:
    """A few more pixels, or fewer."""
    rule = choose_knobs(problem, vector)
    points = tuple(
        (pixels,) for pixels in range(1, 2 * PIXELS + 1) if is_its_own(cut(problem.out_width, pixels), pixels)
    )
    return Space(
        ("pixels",),
        points,
        lambda point: replace(rule, pixels=point[0]),
        lambda point: 1 + abs(point[0] - rule.pixels) / PIXELS,
    )


def schedule(sch: Any, problem: Pool2d, vector: Vector, knobs: Knobs | None = None) -> None:
    """Write the nest of the fused function in the schedule."""
    knobs = knobs or choose_knobs(problem, vector)
    write_nest(sch, _nest(problem, knobs, take_apart(sch)).build())


def _nest(p: Pool2d, knobs: Knobs, fused: Fused) -> WindowNest:
    data, lanes, tail = fused.operands[0], p.block or 1, (0,) if p.block else ()

    def add(register: Buffer, value: Expr, *_: Expr) -> Stmt:
        old = load(register, [0], lanes)
        return store(register, larger(old, value) if p.kind == "max" else old + value, [0], lanes)

    return WindowNest(
        p.batch,
        p.shape[1],
        lanes,
        p.rows,
        p.columns,
        knobs.pixels,
        knobs.row_parts,
        dtype=_dtype(p, data),
        identity=_identity(p, _dtype(p, data)),
        read=lambda place: _number(p, load(data, [*place, *tail], lanes)),
        add=add,
        finish=lambda place, register: fused.finish([*place, *tail], register),
    )
