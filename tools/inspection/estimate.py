"""How long kernels may take on a core of ARM, by the pace of their inner loops and by the bytes that they move. An
estimate: nothing in it knows caches, other threads or the operating system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from inspection.loops import Loop
from inspection.throughput import Core, cycles, is_product, peak_cycles
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, winograd
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerPair
from lvc.backends.tvm.cpu.kernels.winograd_cost import WinogradCost
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.program import Step


@dataclass(frozen=True)
class Pace:
    """The loop of a kernel's register tile by a scheduling ``model``: its multiply-adds by instruction, how many of
    them pass in a cycle, and what share of those that could if nothing else stood there."""

    model: str
    products: dict[str, int]
    rate: float
    peak_share: float


def pace(loops: Sequence[Loop], core: Core) -> Pace | None:
    """That of the loop with most accumulators, the register tile that the rule chose; None without a reduction."""
    summing = [loop for loop in loops if loop.accumulators] or list(loops)
    if not summing:
        return None
    tile = max(summing, key=lambda loop: (len(loop.accumulators), loop.counts.multiply_adds))
    names = Counter(one.name for one in tile.instructions if is_product(one, tile))
    taken = max(cycles(tile, core), peak_cycles(tile, core))
    return Pace(core.model, dict(names), names.total() / taken, peak_cycles(tile, core) / taken)


def seconds(step: Step, pace: Pace | None, vector: Vector, core: Core) -> float:
    """The time of one call on one thread: that of its arithmetic or of its bytes, whichever is longer."""
    problem, moved = getattr(step.schedule, "problem", None), _bytes(step) / core.bandwidth
    products = _products(problem) * _registers(problem, vector)
    if pace is None or not products:
        return moved
    extra = WinogradCost(problem, vector).transforms if isinstance(problem, winograd.Winograd) else 0
    return max((products / pace.rate + extra) / (core.clock * 1e9), moved)


def _bytes(step: Step) -> int:
    """What a kernel reads and writes, each byte once."""
    buffers = step.function.buffer_map.values() if hasattr(step.function, "buffer_map") else step.function.params
    return sum(prod(map(int, buffer.shape)) * np.dtype(str(buffer.dtype)).itemsize for buffer in buffers)


def _products(problem: Any) -> int:
    """The vector multiply-adds of a contraction; 0 for anything else."""
    match problem:
        case conv2d.Conv2d() | conv_transpose2d.ConvTranspose2d():
            g = problem.geometry
            operand = g.channels.operand
            pixels = g.batch * sum(rows.outputs * operand.whole(columns.outputs) for rows, columns in g.phases)
            vectors = sum(blocks * times for blocks, times in g.channels.result.patches.items())
            return pixels * vectors * g.depth * _each(operand) // operand.rows
        case winograd.Winograd():
            channels, (rows, columns) = problem.channels, problem.tiles
            vectors = sum(blocks * times for blocks, times in channels.result.patches.items())
            return problem.plain.batch * problem.points * vectors * rows * columns * problem.steps
        case depthwise.Depthwise():
            pixels = problem.batch * problem.rows.outputs * problem.columns.outputs
            return pixels * problem.blocks * prod(problem.kernel)
        case matmul.Matmul():
            operand = problem.operand
            return operand.whole(problem.m) * problem.panels * problem.steps * _each(operand) // operand.rows
        case batch_matmul.BatchMatmul():
            return problem.batch * problem.m * problem.panels * problem.steps * _each(problem.operand)
    return 0


def _registers(problem: Any, vector: Vector) -> int:
    """Registers that a vector of sums takes while products are added to it."""
    operand = getattr(problem, "operand", None)
    return 1 if operand and operand.held else vector.isa.float_registers


def _each(operand: Any) -> int:
    """Instructions of a step for each vector of sums."""
    return 2 if isinstance(operand, IntegerPair) else 1
