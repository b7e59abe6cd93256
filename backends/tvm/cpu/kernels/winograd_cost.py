"""The rule that picks an algorithm for a convolution, and the knobs of minimal filtering: cycles by count.

As in `tile_cost` they only rank choices. Weights are taken to come from memory: in a network no cache holds them until
the next call. That is what speaks against large tiles where there are few of them, since their weights are up to four
times as large as those of the plain convolution. They are read from first to last, while the products go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from lvc.backends.tvm.cpu.kernels import conv_nest
from lvc.backends.tvm.cpu.kernels.conv2d import Conv2d
from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES
from lvc.backends.tvm.cpu.kernels.parts import HIDDEN
from lvc.backends.tvm.cpu.kernels.register_tile import cut, tile_count
from lvc.backends.tvm.cpu.kernels.space import tiles
from lvc.backends.tvm.cpu.kernels.tile_cost import HEIGHTS, SECOND_SHARE, TileCost
from lvc.backends.tvm.cpu.kernels.winograd_nest import Knobs
from lvc.backends.tvm.cpu.vector import Vector

if TYPE_CHECKING:
    from lvc.backends.tvm.cpu.kernels.winograd import Winograd

TO_POINTS, TO_OUTPUTS = 4.0, 3.0  # cycles of the transforms for a vector of each point
STREAM = 2  # times the rate of the third level at which weights come from there, read in order once
EXPOSED = 0.5  # of the time in which weights come from memory, what is not hidden behind the arithmetic
THIRD_SHARE = 0.5  # of that cache, for weights from strip to strip
MOST_DATA = 4 << 20  # bytes of transformed data that a strip may take
DEEP = 128  # channels from which half as large chunks are as fast or faster on one thread, and more threads have work
PRODUCTS_SHARE = 0.25  # of the second level, for the products of a chunk


def plain_cycles(problem: Conv2d, vector: Vector) -> float:
    """Cycles of the plain convolution."""
    return conv_nest.call_cycles(problem.geometry, vector)


@dataclass(frozen=True)
class WinogradCost:
    """The cost of a convolution by minimal filtering."""

    problem: Winograd
    vector: Vector

    @cached_property
    def weights(self) -> int:
        """Bytes of the prepared weights."""
        channels = self.problem.channels
        return WORD_BYTES * self.problem.points * channels.out_blocks * channels.out_block * self.problem.steps

    @cached_property
    def _tile_cost(self) -> TileCost:
        return TileCost(self.vector, self.problem.steps, operand=self.problem.operand)

    @cached_property
    def transforms(self) -> float:
        """Cycles to bring the data to the points, and the products back, of one image."""
        rows, columns = self.problem.tiles
        channels = self.problem.channels
        vectors = channels.in_blocks * TO_POINTS + channels.out_blocks * TO_OUTPUTS
        return self.problem.points * rows * columns * vectors

    def cycles(self, knobs: Knobs) -> float:
        """Cycles on one thread."""
        strips, columns, machine = cut(self.problem.tiles[0], knobs.rows), self.problem.tiles[1], self.vector.machine
        products = sum(run.count * self._products(run.size * columns, knobs) for run in strips)
        turns = self.problem.plain.batch * tile_count(strips)
        work = self.problem.plain.batch * (self.transforms + products) / turns
        from_memory = 1 if self.weights <= THIRD_SHARE * machine.third.size else turns
        first = machine.fetching(work, self.weights / machine.stream_rate, EXPOSED)
        again = max(work, self.weights / (STREAM * machine.third_rate))
        return from_memory * first + (turns - from_memory) * again

    def _products(self, tiles: int, knobs: Knobs) -> float:
        """Cycles of the products of a strip, which reads all weights, where these are at hand."""
        channels = self.problem.channels
        chunks = cut(channels.out_blocks, knobs.chunk, channels.result.period)
        planes = sum(run.count * self._planes(run.size, tiles, (knobs.vectors, knobs.tiles)) for run in chunks)
        machine, readings = self.vector.machine, tile_count(chunks) if channels.groups == 1 else 1
        passes = readings + 1 if self._data(tiles) > SECOND_SHARE * machine.second.size else 0
        return self.problem.points * planes + passes * self._data(tiles) / (HIDDEN * machine.third_rate)

    def _planes(self, blocks: int, tiles: int, tile: tuple[int, int]) -> float:
        """Cycles at one point of a chunk of so many blocks, where they are at hand."""
        patches = self.problem.channels.result.part(blocks).patches
        return sum(times * self._tile_cost.plane((vectors, tiles), tile) for vectors, times in patches.items())

    def _data(self, tiles: int) -> int:
        """Bytes of the transformed data of so many tiles."""
        channels = self.problem.channels
        return WORD_BYTES * self.problem.points * channels.in_blocks * channels.block_words * tiles

    def choices(self) -> Iterator[Knobs]:
        """The knobs that are worth a thought."""
        (rows, columns), channels = self.problem.tiles, self.problem.channels
        blocks, period, depth = channels.out_blocks, channels.result.period, channels.span * channels.unit
        threads = self.vector.machine.threads
        for size in dict.fromkeys(-(-rows // parts) for parts in range(1, rows + 1)):
            if size > 1 and self._data(size * columns) > MOST_DATA:
                continue
            block_bytes = 4 * self.problem.points * size * columns * self.problem.channels.out_block
            most = int(PRODUCTS_SHARE * self.vector.machine.second.size) // block_bytes
            most = min(max(most // period * period, period), blocks)
            shared = -(-blocks // (threads * -(-blocks // (threads * most))))
            chunks = {False: most, True: -(-shared // period) * period}
            for together in (False, True) if size == rows else (False,):
                longest = min(chunks[together], channels.result.longest)
                heights = [height for height in HEIGHTS if height > 1 or longest == 1]
                vectors, tiles = self._tile_cost.best_tile((longest, size * columns), heights)
                if together and depth >= DEEP and chunks[True] % (2 * math.lcm(vectors, period)) == 0:
                    yield Knobs(vectors, tiles, size, chunks[True] // 2, together)
                yield Knobs(vectors, tiles, size, chunks[together], together)

    def best(self) -> Knobs:
        """The knobs with the fewest cycles, where threads that wait count too."""
        return min(self.choices(), key=lambda knobs: self.cycles(knobs) * self._unevenness(knobs))

    def variants(self, rule: Knobs) -> Iterator[Knobs]:
        """Knobs with which threads wait no longer than with the rule's: `choices`, and it in other register tiles."""
        yield from (knobs for knobs in self.choices() if self._unevenness(knobs) <= self._unevenness(rule))
        size = (min(rule.chunk, self.problem.channels.result.longest), rule.rows * self.problem.tiles[1])
        for vectors, scalars in tiles(self._tile_cost, HEIGHTS, size):
            yield replace(rule, vectors=vectors, tiles=scalars)

    def _unevenness(self, knobs: Knobs) -> float:
        """How much longer it takes than with equal shares, on the average of two and of more threads."""
        result, rows = self.problem.channels.result, self.problem.tiles[0]
        runs = (
            cut(result.count, knobs.chunk, result.period)
            if knobs.together
            else cut(rows, knobs.rows) * self.problem.plain.batch
        )
        sizes = [run.size for run in runs for _ in range(run.count)]
        return sum(threads * _longest_share(sizes, threads) for threads in (2, self.vector.machine.threads)) / (
            2 * sum(sizes)
        )


def _longest_share(sizes: Sequence[int], threads: int) -> int:
    """The most that one of so many threads has to do, each of which takes as many neighbouring tasks."""
    count = -(-len(sizes) // threads)
    return max(sum(sizes[first : first + count]) for first in range(0, len(sizes), count))
