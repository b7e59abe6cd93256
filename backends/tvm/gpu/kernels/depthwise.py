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
from lvc.backends.tvm.gpu.kernels.windows import Windows, can_convolve, windows_of
from lvc.backends.tvm.gpu.lanes import write_lanes
from lvc.backends.tvm.gpu.launch import QUAD, Launches, copy, fma, local, split, when
from lvc.backends.tvm.nest import UNROLLED, Expr, Stmt, allocate, block, load, loop, store, zeros
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.scope import Constant
from lvc.backends.tvm.short_floats import as_float32
from lvc.compiler.ir.graph import is_call

aten = torch.ops.aten
THREADS = 128
RUN = 4  # pixels of a thread, where there is work for all threads


@dataclass(frozen=True)
class Depthwise:
    """Data ``[N, ceil(C/4), H, W, 4]``, result ``[N, ceil(C/4), OH, OW, 4]``; ``run`` neighbours by one thread."""

    windows: Windows
    channels: int
    run: int = 1

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
    packed = np.zeros((problem.blocks * QUAD, problem.windows.taps), np.float32)
    packed[: problem.channels] = weight.reshape(problem.channels, -1)
    return np.ascontiguousarray(packed.T).reshape(problem.weight_shape)


def compute(problem: Depthwise, data: Any, weight: Any) -> Any:
    """The convolution as TE; ``weight`` as `pack_weight` makes it."""
    w = problem.windows
    tap = te.reduce_axis((0, w.taps), "tap")

    def anchor(n: Any, c: Any, y: Any, x: Any, lane: Any) -> Any:
        row, column = w.place(y, x, tap)
        value = tirx.if_then_else(
            w.is_inside(row, column), as_float32(data[n, c, row, column, lane].asobject()), tirx.const(0, "float32")
        )
        return te.sum(value * weight[tap, c, lane], axis=tap)

    shape = (w.batch, problem.blocks, w.out_height, w.out_width, QUAD)
    return te.compute(shape, te.compute(shape, anchor, name="anchor"), name="result")


def anchor(call: Call, gpu: Gpu) -> Anchor | None:
    """For stored weights in float32 and one window a channel."""
    if not (is_call(call.node, aten.conv2d.default) and can_convolve(call, "float32")):
        return None
    layout, values = call.layout_of("input"), call["weight"].constant
    channels = call["input"].shape[1]
    if layout is None or not layout.block or channels == 1 or not call["groups"] == channels == len(values):
        return None
    windows = windows_of(call)
    vectors = windows.pixels * -(-channels // QUAD)
    run = RUN if windows.out_width % RUN == 0 and vectors >= RUN * THREADS * 4 * gpu.multiprocessors else 1
    problem = Depthwise(windows, channels, run)
    key = f"{call.in_memory('weight').target} {call.node.target} gpu {problem}"
    source = Constant(key, lambda: pack_weight(problem, values))
    packed = call.scope.parameter(problem.weight_shape, "float32", source)
    result = compute(problem, call.tensor("input"), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    return Anchor(with_bias(call, total, 1), KernelSchedule(schedule, problem))


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
        sums, factor = local([p.run, QUAD], "sums"), local([QUAD], "factor")
        value = local([QUAD], "value", str(data.dtype))

        def tap(at: Expr) -> Stmt:
            reads = [add(at, pixel) for pixel in range(p.run)]
            return block(copy(factor, [0], weight, [at, c, 0], QUAD), *reads)

        def add(at: Expr, pixel: int) -> Stmt:
            row, column = w.place(y, x * p.run + pixel, at)
            read = copy(value, [0], data, [n, c, row, column, 0], QUAD)

            def product(lane: int) -> Stmt:
                x, total = as_float32(load(value, [lane])), load(sums, [pixel, lane])
                return store(sums, fma(x, load(factor, [lane]), total), [pixel, lane])

            products = map(product, range(QUAD))
            return when(w.is_inside(row, column), block(read, *products))

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
            *(store(sums, zeros(1), [pixel, lane]) for pixel in range(p.run) for lane in range(QUAD)),
            loop(w.taps, tap, UNROLLED, "tap"),
            *(finish(pixel) for pixel in range(p.run)),
        )

    launches.add(-(-total // THREADS), THREADS, body)
