"""Depthwise convolution: each thread makes four channels of a few neighbouring pixels, whose windows overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.guards import fused_of
from lvc.backends.tvm.gpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.gpu.kernels.factors import Bytes
from lvc.backends.tvm.gpu.kernels.windows import Windows, can_convolve, windows_of
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, copy, fma, local, split, when
from lvc.backends.tvm.nest import UNROLLED, Expr, Stmt, allocate, block, load, loop, store, zeros
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.backends.tvm.short_floats import as_float32
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten
THREADS = 128
RUN = 4  # pixels of a thread, where there is work for all threads


@dataclass(frozen=True)
class Depthwise:
    """Data ``[N, ceil(C/4), H, W, 4]``, result ``[N, ceil(C/4), OH, OW, 4]``; ``run`` neighbours by one thread.

    ``zero`` is the zero point of data in 8 bits, which are summed in int32; None of floats, summed in float32.
    """

    windows: Windows
    channels: int
    run: int = 1
    zero: int | None = None

    @property
    def weight(self) -> str:
        """The type of weights."""
        return "float32" if self.zero is None else "int8"

    @property
    def dtype(self) -> str:
        """The type of sums."""
        return "float32" if self.zero is None else "int32"

    def value(self, element: Expr) -> Expr:
        """An element in the type of sums."""
        return as_float32(element) if self.zero is None else tirx.Cast("int32", element)

    def product(self, x: Expr, y: Expr, total: Expr) -> Expr:
        """A sum and the product of two elements."""
        return fma(x, y, total) if self.zero is None else total + x * tirx.Cast("int32", y)

    @property
    def blocks(self) -> int:
        """Blocks of four channels."""
        return -(-self.channels // QUAD)

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of the packed weights: taps, blocks of channels, channels."""
        return self.windows.taps, self.blocks, QUAD


def pack_weight(problem: Depthwise, weight: np.ndarray) -> np.ndarray:
    """Put weights ``[C, 1, KH, KW]`` in the order of taps, channels inside."""
    packed = np.zeros((problem.blocks * QUAD, problem.windows.taps), problem.weight)
    packed[: problem.channels] = weight.reshape(problem.channels, -1)
    return np.ascontiguousarray(packed.T).reshape(problem.weight_shape)


def compute(problem: Depthwise, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    w = problem.windows
    tap = te.reduce_axis((0, w.taps), "tap")

    def anchor(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = w.place(y, x, tap)
        found = problem.value(data[n, c, row, column, lane].asobject())
        value = tirx.if_then_else(w.is_inside(row, column), found, tirx.const(problem.zero or 0, problem.dtype))
        return te.sum(value * tirx.Cast(problem.dtype, weight[tap, c, lane].asobject()), axis=tap)

    shape = (w.batch, problem.blocks, w.out_height, w.out_width, QUAD)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights and one window a channel, in float32 or in integers."""
    is_integer = is_call(call.node, integer.conv2d)
    if not is_integer and not is_call(call.node, aten.conv2d.default):
        return None
    if not can_convolve(call, *(("uint8", "int8") if is_integer else ("float32",))):
        return None
    layout, values = call.layout_of("input"), call["weight"].constant
    channels = call["input"].shape[1]
    if layout is None or not layout.block or channels == 1 or not call["groups"] == channels == len(values):
        return None
    windows = windows_of(call)
    vectors = windows.pixels * -(-channels // QUAD)
    run = RUN if windows.out_width % RUN == 0 and vectors >= RUN * THREADS * 4 * gpu.multiprocessors else 1
    problem = Depthwise(windows, channels, run, call["zero_point"] if is_integer else None)
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    source = Constant(key, lambda: pack_weight(problem, values))
    packed = call.scope.parameter(problem.weight_shape, problem.weight, source)
    result = compute(problem, call.tensor("input"), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    corrected = Bytes.of(call).corrected(call, total, 1) if is_integer else with_bias(call, total, 1)
    return Anchor(corrected, KernelSchedule(schedule, problem))


def schedule(sch: Any, problem: Depthwise, launches: Launches) -> None:
    """Write the launch of the fused function."""
    p, w, fused = problem, problem.windows, fused_of(sch)
    data, weight = fused.operands
    extents = (w.batch, p.blocks, w.out_height, -(-w.out_width // p.run))
    total = math.prod(extents)

    def body(number: Expr, thread: Expr) -> Stmt:
        flat = number * THREADS + thread
        return when(True if total % THREADS == 0 else flat < total, pixels(*split(flat, extents)))

    def pixels(n: Expr, c: Expr, y: Expr, x: Expr) -> Stmt:
        sums, factor = local([p.run, QUAD], "sums", p.dtype), local([QUAD], "factor", p.weight)
        value = local([QUAD], "value", str(data.dtype))

        def tap(at: Expr) -> Stmt:
            reads = [add(at, pixel) for pixel in range(p.run)]
            return block(copy(factor, [0], weight, [at, c, 0], QUAD), *reads)

        def add(at: Expr, pixel: int) -> Stmt:
            row, column = w.place(y, x * p.run + pixel, at)
            read = copy(value, [0], data, [n, c, row, column, 0], QUAD)

            def product(lane: int) -> Stmt:
                x, total = p.value(load(value, [lane])), load(sums, [pixel, lane])
                return store(sums, p.product(x, load(factor, [lane]), total), [pixel, lane])

            products = map(product, range(QUAD))
            if not p.zero:
                return when(w.is_inside(row, column), block(read, *products))
            outside = (store(value, tirx.const(p.zero, str(data.dtype)), [lane]) for lane in range(QUAD))
            return block(tirx.IfThenElse(w.is_inside(row, column), read, block(*outside)), *products)

        def finish(pixel: int) -> Stmt:
            index = [n, c, y, x * p.run + pixel]
            return write_lanes(
                QUAD,
                fused.output,
                lambda lane: [*index, lane],
                lambda lane: fused.element([*index, lane], load(sums, [pixel, lane])),
            )

        return allocate(
            [sums, value, factor],
            *(store(sums, zeros(1, p.dtype), [pixel, lane]) for pixel in range(p.run) for lane in range(QUAD)),
            loop(w.taps, tap, UNROLLED, "tap"),
            *(finish(pixel) for pixel in range(p.run)),
        )

    launches.add(-(-total // THREADS), THREADS, body)
