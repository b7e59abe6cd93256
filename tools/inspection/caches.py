"""What a kernel's register tile asks of the caches: which level its panels come from, and whether its rows fight."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, winograd
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, WORD_BYTES, DotOperand
from lvc.backends.tvm.cpu.kernels.register_tile import cut, tile_count
from lvc.backends.tvm.cpu.kernels.tile_cost import FIRST_SHARE, SECOND_SHARE
from lvc.backends.tvm.cpu.machine import LINE, Cache, Machine
from lvc.backends.tvm.cpu.vector import Vector

LEVELS = ("first", "second", "third", "memory")


@dataclass(frozen=True)
class Footprint:
    """A tile of ``vectors`` by ``rows``: it walks ``panel`` bytes of the vectors' side in ``steps``, which come again
    for the next of ``tiles``, and takes an ``operand`` of each row at each step, ``stride`` bytes apart."""

    vectors: int
    rows: int
    panel: int
    steps: int
    tiles: int
    stride: int
    operand: DotOperand = FLOAT32

    def crowd(self, cache: Cache) -> int:
        """Rows whose lines share one set of a cache, at most."""
        way = cache.size // cache.ways
        return max(Counter(row * self.stride % way // LINE for row in _lines(self.rows, self.stride)).values())

    def level(self, machine: Machine) -> str:
        """The level that keeps the panels from tile to tile."""
        shares = (FIRST_SHARE * machine.first.size, SECOND_SHARE * machine.second.size, machine.third.size)
        return next((name for name, size in zip(LEVELS, shares, strict=False) if self.panel <= size), LEVELS[-1])

    def wait(self, vector: Vector) -> float:
        """How many times as long as its arithmetic a step waits for what it reads of the panels; 0 if they are read
        once."""
        if self.tiles == 1:
            return 0.0
        machine = vector.machine
        rates = (vector.bytes * machine.loads, machine.second_rate, machine.third_rate, machine.memory_rate)
        rate = rates[LEVELS.index(self.level(machine))]
        cost = self.operand.step_cost(vector)
        busy = max(self.vectors * self.rows * cost.cycles, cost.latency)
        return self.panel / self.steps / rate / busy

    def suspicions(self, vector: Vector) -> list[str]:
        """Why the tile may be slow, a sentence each."""
        found, first, wait = [], vector.machine.first, self.wait(vector)
        if (crowd := self.crowd(first)) > first.ways:
            found.append(f"{crowd} rows, {self.stride} bytes apart, fight for {first.ways} places of the first level")
        if wait > 1:
            level = self.level(vector.machine)
            found.append(f"panels of {self.panel >> 10} KiB come from {_where(level)}: {wait:.1f} times the arithmetic")
        return found


def _where(level: str) -> str:
    return level if level == LEVELS[-1] else f"the {level} level"


def _lines(rows: int, stride: int) -> list[int]:
    """Rows that have a line of their own, where several may lie in one."""
    return list({row * stride // LINE: row for row in range(rows)}.values())


def footprint(problem: Any, vector: Vector) -> Footprint | None:
    """The tile of a kernel with the knobs that it gets untuned; None for one that is no contraction."""
    match problem:
        case conv2d.Conv2d() | conv_transpose2d.ConvTranspose2d():
            return _convolution(problem, vector)
        case winograd.Winograd():
            return _filtering(problem, vector)
        case depthwise.Depthwise():
            return _depthwise(problem, vector)
        case matmul.Matmul() | batch_matmul.BatchMatmul():
            return _product(problem, vector)
    return None


def _convolution(problem: Any, vector: Vector) -> Footprint:
    module = conv2d if isinstance(problem, conv2d.Conv2d) else conv_transpose2d
    knobs, g = module.choose_knobs(problem, vector), problem.geometry
    operand = g.channels.operand
    steps = g.depth // knobs.depth_parts
    pixel = g.channels.lanes * operand.word_bytes // operand.elements
    columns = g.phases[0][1]
    tiles = tile_count(cut(g.line, knobs.pixels)) * g.rows
    panel = knobs.vectors * vector.lanes * operand.word_bytes * steps
    return Footprint(knobs.vectors, knobs.pixels, panel, steps, tiles, pixel * columns.stride, operand)


def _filtering(problem: winograd.Winograd, vector: Vector) -> Footprint:
    knobs, operand, steps = winograd.choose_knobs(problem, vector), problem.operand, problem.steps
    tiles, pixel = tile_count(cut(knobs.rows * problem.tiles[1], knobs.tiles)), vector.bytes // operand.elements
    return Footprint(knobs.vectors, knobs.tiles, knobs.vectors * vector.bytes * steps, steps, tiles, pixel, operand)


def _depthwise(problem: depthwise.Depthwise, vector: Vector) -> Footprint:
    knobs, steps = depthwise.choose_knobs(problem, vector), problem.kernel[0] * problem.kernel[1]
    pixel = problem.block * (WORD_BYTES if problem.zero_point is None else 1)
    tiles = tile_count(cut(problem.columns.outputs, knobs.pixels)) * problem.rows.outputs
    return Footprint(1, knobs.pixels, vector.bytes * steps, steps, tiles, pixel * problem.stride[1])


def _product(problem: Any, vector: Vector) -> Footprint:
    module = matmul if isinstance(problem, matmul.Matmul) else batch_matmul
    knobs, steps = module.choose_knobs(problem, vector), problem.steps
    tiles = tile_count(cut(problem.m, knobs.rows))
    word = problem.operand.word_bytes
    panel = knobs.vectors * vector.lanes * word * steps
    return Footprint(knobs.vectors, knobs.rows, panel, steps, tiles, word * steps, problem.operand)
