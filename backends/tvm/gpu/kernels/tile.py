"""Tiles of products, and which one has the least time by a count of cycles.

Rows are pixels or rows of a matrix, columns are channels of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import Any, TypeVar

from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels.factors import Pace
from lvc.backends.tvm.gpu.launch import QUAD, WARP
from lvc.backends.tvm.program import ITEM_BYTES

STEP = 32  # terms of the sums in shared memory at once, or a little more or less
REGISTERS = 48  # of a thread, beside its sums and what it multiplies
LATENCY = 700  # cycles that a block waits for a part of the factors, and what little it has to do meanwhile hides
LAUNCH = 0.8e-6  # seconds that another launch of a CUDA graph takes
ROUND = 100  # cycles of two barriers, and of waiting for shared memory between them
BUSY_WARPS = 8  # that keep a multiprocessor's arithmetic busy
FETCHED_BYTES = 32  # that a multiprocessor gets from the second-level cache in a cycle
SHARED_BYTES = 128  # that a multiprocessor's shared memory gives in a cycle
ISSUED = 4 * WARP  # instructions of threads that a multiprocessor begins in a cycle
COPYING = 16  # instructions that it takes to find a vector of a factor and have it copied
MOST_STAGES = 4
BLOCK_SHARED = 48 << 10  # bytes of shared memory that a block may have without asking


@dataclass(frozen=True)
class Size:
    """Of products: rows, columns and terms of each of so many groups."""

    rows: int
    columns: int
    depth: int
    groups: int = 1

    @property
    def results(self) -> int:
        return self.rows * self.columns * self.groups


@dataclass(frozen=True)
class Tile:
    """``rows`` by ``columns`` of a block, ``height`` by ``width`` of a thread, by so many ``slices`` of threads. Sums
    are cut into ``parts``, each by blocks of its own; another launch adds them up."""

    rows: int
    columns: int
    height: int
    width: int
    slices: int = 1
    parts: int = 1

    @property
    def down(self) -> int:
        """Threads below each other."""
        return self.rows // self.height

    @property
    def across(self) -> int:
        """Threads beside each other."""
        return self.columns // self.width

    @cached_property
    def team(self) -> int:
        """Threads of a slice."""
        return self.down * self.across

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.team * self.slices

    @cached_property
    def quads(self) -> int:
        """Blocks of four terms that a slice has of each step: so many that there is room for three steps."""
        most = BLOCK_SHARED // (3 * _WORD_BYTES * (self.stride + self.columns))
        return max(1, min(STEP, most) // (QUAD * self.slices))

    @property
    def step(self) -> int:
        """Terms of a step."""
        return QUAD * self.quads * self.slices

    @property
    def stride(self) -> int:
        """Rows from one block of terms in shared memory to the next: an odd number, so that blocks of one row begin in
        different banks."""
        return self.rows | 1

    @property
    def stage_words(self) -> int:
        """Words of shared memory for one step."""
        return self.step * (self.stride + self.columns)

    def stages(self, gpu: Gpu) -> int:
        """Steps that shared memory has room for."""
        most = BLOCK_SHARED // (_WORD_BYTES * self.stage_words)
        return min(MOST_STAGES, most) if gpu.capability.copies_ahead else min(2, most)

    def together(self, gpu: Gpu) -> int:
        """Rows of each thread that slices add up in one round: as many as shared memory has room for."""
        return min(self.height, self.stages(gpu) * self.stage_words // (self.threads * self.width))

    def blocks(self, rows: int, columns: int) -> int:
        """Tiles of a result."""
        return -(-rows // self.rows) * -(-columns // self.columns)

    def steps(self, depth: int) -> int:
        """Steps of one part of a sum of so many terms."""
        return -(-depth // (self.step * self.parts))

    def cycles(self, gpu: Gpu, factor: Pace, size: Size) -> float:
        """An estimate of a product's time on a GPU."""
        blocks = self.blocks(size.rows, size.columns) * size.groups * self.parts
        multiplied = self.launch_cycles(gpu, factor, blocks, self.steps(size.depth), self.resident(gpu))
        if self.parts == 1:
            return multiplied
        parts = _WORD_BYTES * size.results * self.parts / gpu.bytes_per_cycle  # are written, and read again
        return max(multiplied, parts) + gpu.cycles(LAUNCH) + max(LATENCY, parts * (1 + 1 / self.parts))

    def launch_cycles(self, gpu: Gpu, factor: Pace, blocks: int, steps: int, resident: int) -> float:
        """An estimate for ``blocks`` of so many ``steps``, of which a multiprocessor has room for ``resident``."""
        resident = min(resident, -(-blocks // gpu.multiprocessors))
        busy = min(1.0, resident * -(-self.threads // WARP) / BUSY_WARPS)
        waited = LATENCY / resident / (self.stages(gpu) - 1)
        each = max(self.step_cycles(gpu, factor, busy), waited) * steps + self.adding(gpu)
        return LATENCY + -(-blocks // gpu.multiprocessors) * each  # the first step has nothing to hide behind

    def step_cycles(self, gpu: Gpu, factor: Pace, busy: float) -> float:
        """Those of a step of which nothing is waited for, while so much of the arithmetic is busy."""
        products, loads = self.rows * self.columns * self.step, self.threads * self.quads * (self.height + self.width)
        copies = self.step * (self.rows * factor.elements + self.columns) / QUAD  # four elements of a row, four columns
        multiplied = products / (factor.rate(gpu) / factor.elements * busy)
        issued = (products + loads + COPYING * copies) / (ISSUED * busy)
        passed = _WORD_BYTES * (QUAD * loads + self.step * (self.rows + self.columns)) / SHARED_BYTES
        fetched = _WORD_BYTES * (self.rows + self.columns) * self.step / FETCHED_BYTES
        return max(multiplied, issued, passed, fetched)

    def adding(self, gpu: Gpu) -> float:
        """Cycles in which the slices of a block add up their sums."""
        if self.slices == 1:
            return 0
        moved = 2 * _WORD_BYTES * self.threads * self.height * self.width
        return moved / SHARED_BYTES + ROUND * -(-self.height // self.together(gpu))

    def asked_for(self, gpu: Gpu) -> float:
        """Bytes of the factors that each thread waits for at once."""
        return _WORD_BYTES * self.step * (self.rows + self.columns) / self.threads * (self.stages(gpu) - 1)

    def resident(self, gpu: Gpu) -> int:
        """Blocks that a multiprocessor holds at once."""
        of, registers = gpu.capability, REGISTERS + self.height * self.width + QUAD * self.height + self.width
        shared_bytes = self.stages(gpu) * _WORD_BYTES * self.stage_words
        limits = of.threads // self.threads, of.registers // (registers * self.threads), of.shared // shared_bytes
        return max(1, min(of.blocks, *limits))


T = TypeVar("T", bound=Tile)
_WORD_BYTES = ITEM_BYTES["float32"]
SMALLEST = Tile(32, 16, 4, 4, 8)
_EIGHTH = 8  # threads whose vectors of 16 bytes pass the banks of shared memory together
_BESIDE = (2, 3, 4, 5, 6, 7, 8, 16)  # threads whose vectors are in different banks, wherever eight of them begin
_LEAST_TEAM = 8
_THREADS = (128, 256)  # of a block, or a little less


def _tiles() -> Iterator[Tile]:
    for height, width, down, across in product((4, 5, 6, 7, 8), (4, 8), _BESIDE, _BESIDE):
        team = down * across
        if team % _EIGHTH == 0 and team >= _LEAST_TEAM:
            for slices in {most // team for most in _THREADS if most >= team}:
                tile = Tile(down * height, across * width, height, width, slices)
                if 2 * _WORD_BYTES * tile.stage_words <= BLOCK_SHARED:
                    yield tile


TILES = tuple(_tiles())
_PARTS = range(2, 17)
LEAST_STEPS = 2  # of a part of a sum
MANY = 4  # blocks for each multiprocessor, beyond which sums are not made in parts


def choose_tile(gpu: Gpu, factor: Pace, size: Size, tiles: tuple[T, ...]) -> T:
    """The tile with the least time by estimate, whose sums are in parts while there are not many blocks; of equal ones
    the smallest."""
    found: T = _chosen(gpu, factor, size, tiles)
    return found


@cache
def _chosen(gpu: Gpu, factor: Any, size: Size, tiles: tuple[Any, ...]) -> Any:
    best, least = None, (math.inf, 0)
    for tile in tiles:
        blocks, steps = tile.blocks(size.rows, size.columns) * size.groups, -(-size.depth // tile.step)
        each, adding = tile.step_cycles(gpu, factor, busy=1.0), tile.adding(gpu)
        for parts in (1, *_PARTS):
            if parts > 1 and (steps < parts * LEAST_STEPS or blocks * parts > MANY * gpu.multiprocessors):
                break
            added = LATENCY if parts == 1 else 2 * LATENCY + gpu.cycles(LAUNCH)
            if added + -(-blocks * parts // gpu.multiprocessors) * (each * -(-steps // parts) + adding) > least[0]:
                continue  # it takes longer even if nothing is waited for
            made = replace(tile, parts=parts)
            if (cost := (made.cycles(gpu, factor, size), tile.rows * tile.columns)) < least:
                best, least = made, cost
    return best


def row_turns(tile: Tile, together: int) -> int:
    """How often a thread loads so many terms of a row, until a step has all."""
    return -(-tile.rows * tile.step // together // tile.threads)


def row_kinds(tile: Tile, together: int) -> int:
    """How many different rows a thread loads; in later turns they are the same ones again."""
    around, turns = QUAD // together * tile.rows, row_turns(tile, together)
    return 1 if tile.threads % around == 0 else turns


def padded_columns(tile: Tile, columns: int) -> int:
    """Columns of stored weights, of whole tiles."""
    return -(-columns // tile.columns) * tile.columns


def padded_terms(tile: Tile, depth: int) -> int:
    """Terms of stored weights, of whole steps and parts."""
    return tile.steps(depth) * tile.parts * tile.step
