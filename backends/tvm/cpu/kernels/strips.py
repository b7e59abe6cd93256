"""Which blocks of a convolution's result are of one group of its channels, and which are shared by several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.register_tile import Run, cut, each_tile_of, tile_count
from lvc.backends.tvm.fused import Fused
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, int32, load, loop, scratch, store

MOST_WRITTEN = 5  # kinds of strips that stand in the code one by one


@dataclass(frozen=True)
class Strip:
    """``blocks`` neighbours from block ``first`` on, and as many again every ``step`` blocks, ``count`` times in all:
    of one group, or each ``is_shared`` by several."""

    first: int
    blocks: int
    is_shared: bool = False
    count: int = 1
    step: int = 0


@dataclass(frozen=True)
class Patch:
    """What a register tile is of: ``lanes`` neighbours from ``lane`` on in each of ``vectors`` blocks from ``block``
    on, computed from the data of one ``group``. Where others of them are of other groups, ``kept`` are those that are
    of it: the first and how many."""

    block: Expr
    vectors: int
    group: Expr
    lanes: int
    lane: Expr = 0
    kept: tuple[Expr, Expr] | None = None

    def write(self, fused: Fused, image: Expr, vector: int, pixel: tuple[Expr, Expr], sums: Buffer, *at: Expr) -> Stmt:
        """Write what becomes of the sums of a pixel in one of the blocks, which are a row of a buffer."""
        place = [image, self.block + vector, *pixel]
        if self.kept is None:
            return fused.finish([*place, self.lane], sums, at)
        first, count = self.kept
        row = scratch([self.lanes], "row", sums.dtype)
        copy = store(row, load(sums, [*at, 0], self.lanes), [0], self.lanes)
        if isinstance(count, int):
            part = scratch([count], "part", sums.dtype)
            take = store(part, load(row, [first], count), [0], count)
            return allocate([row, part], copy, take, fused.finish([*place, first], part))

        def element(lane: Expr) -> Stmt:
            return fused.put([*place, lane], load(row, [lane]))

        return allocate([row], copy, loop(count, element, name="lane", start=first))


@dataclass(frozen=True)
class GroupBlocks:
    """The ``outputs`` of so many ``groups`` in blocks of ``lanes`` channels. Lanes past the last channel are counted to
    the last group."""

    outputs: int
    groups: int
    lanes: int

    @cached_property
    def size(self) -> int:
        """Channels of a group."""
        return self.outputs // self.groups

    @cached_property
    def count(self) -> int:
        """Blocks."""
        return -(-self.outputs // self.lanes)

    @cached_property
    def period(self) -> int:
        """Blocks after which groups lie among blocks as before, of which all are so many times as many: 1 where there
        is one group."""
        if self.groups == 1:
            return 1
        return self.count if self.outputs % (self._every * self.lanes) else self._every

    @cached_property
    def _every(self) -> int:
        return math.lcm(self.size, self.lanes) // self.lanes

    def part(self, blocks: int) -> GroupBlocks:
        """So many of the blocks, which are whole periods."""
        outputs = blocks * self.lanes
        if blocks == self.count:
            return self
        return GroupBlocks(outputs, outputs // self.size if self.groups > 1 else 1, self.lanes)

    @cached_property
    def share(self) -> int:
        """Lanes of a shared block that are of one group, where they are equally many in all; else 0."""
        part = math.gcd(self.size, self.lanes)
        return part if part in (self.size, self.lanes // 2) else 0

    @cached_property
    def strips(self) -> tuple[Strip, ...]:
        """All blocks, strips of one kind after those of another; one kind where there would be too many, or no block
        is of one group alone but for the last."""
        kinds: dict[tuple[int, int, bool], list[int]] = {}
        for first, blocks, is_shared in self._runs():
            kinds.setdefault((first % self._every, blocks, is_shared), []).append(first)
        if len(kinds) > MOST_WRITTEN or (self.groups > 1 and self.size < self.lanes):
            return (Strip(0, self.count, is_shared=True),)
        return tuple(
            Strip(firsts[0], blocks, is_shared, len(firsts), self._every)
            for (_, blocks, is_shared), firsts in kinds.items()
        )

    def _runs(self) -> Iterator[tuple[int, int, bool]]:
        """Runs of neighbours that are of one group, or each of several: their first block, how many, and which."""

        def kind(number: int) -> tuple[int, bool]:
            first, count = self._sharers(number)
            return (0, True) if count > 1 else (first, False)

        for (_, is_shared), run in groupby(range(self.count), kind):
            first, *rest = run
            yield first, 1 + len(rest), is_shared

    def _sharers(self, number: int) -> tuple[int, int]:
        """The first group of a block, and how many are in it."""
        first, last = (min(lane // self.size, self.groups - 1) for lane in self._ends(number))
        return first, last - first + 1

    def _ends(self, number: int) -> tuple[int, int]:
        return number * self.lanes, (number + 1) * self.lanes - 1

    @cached_property
    def longest(self) -> int:
        """Blocks of the longest strip that is of one group; 1 where none is."""
        return max((strip.blocks for strip in self.strips if not strip.is_shared), default=1)

    @cached_property
    def patches(self) -> Mapping[int, int]:
        """How many strips of one group there are by their blocks; those parts of shared blocks that are of one group
        count as such of one."""
        found: Counter[int] = Counter()
        for strip in self.strips:
            firsts = [strip.first + turn * strip.step for turn in range(strip.count)]
            if strip.is_shared:
                found[1] += sum(self._sharers(first + number)[1] for first in firsts for number in range(strip.blocks))
            else:
                found[strip.blocks] += strip.count
        return found

    def tiles(self, vectors: int) -> int:
        """Tiles of at most so many vectors in all strips of the kind that has most."""
        return max(strip.count * tile_count(_cut(strip, vectors)) for strip in self.strips)

    def each_patch(
        self, vectors: int, narrow: bool, body: Callable[[Patch], Stmt], share: tuple[Expr, int] = (0, 1)
    ) -> Stmt:
        """Run ``body`` for all patches of at most so many vectors, or for their ``share``: one, by its number, of so
        many equal parts of each kind. ``narrow`` ones may have fewer lanes than a block."""
        return block(*(self._each_of(strip, vectors, narrow, body, share) for strip in self.strips))

    def _each_of(
        self, strip: Strip, vectors: int, narrow: bool, body: Callable[[Patch], Stmt], share: tuple[Expr, int]
    ) -> Stmt:
        runs = _cut(strip, vectors)
        total = strip.count * tile_count(runs)

        def of_run(run: Run) -> Stmt:
            def tile(number: Expr, _: int) -> Stmt:
                turn, tile = _divided(number, run.count) if strip.count > 1 else (0, number)
                first = strip.first + turn * strip.step + run.start + tile * run.size
                if strip.is_shared:
                    return self._each_sharer(first, narrow, body)
                group = self._sharers(strip.first)[0] + turn * (strip.step * self.lanes // self.size)
                return body(Patch(first, run.size, group, self.lanes))

            numbers = Run(run.first * strip.count, 0, run.count * strip.count, 1)
            return each_tile_of(numbers, total, tile, *share)

        return block(*map(of_run, runs))

    def _each_sharer(self, number: Expr, narrow: bool, body: Callable[[Patch], Stmt]) -> Stmt:
        """Run ``body`` for every group of a block."""
        number = int32(number)
        last, is_ragged = self.groups - 1, self.outputs % self.lanes > 0

        def equal(i: Expr) -> Stmt:
            group = tirx.floordiv(number * (self.lanes // self.share) + i, self.size // self.share)
            group = tirx.min(group, last) if is_ragged else group
            if narrow:
                return body(Patch(number, 1, group, self.share, i * self.share))
            return body(Patch(number, 1, group, self.lanes, kept=(i * self.share, self.share)))

        def any_of(i: Expr) -> Stmt:
            group = first + i
            start = group * self.size - number * self.lanes
            begin, end = tirx.max(start, 0), tirx.min(start + self.size, self.lanes)
            if is_ragged:
                end = tirx.Select(tirx.EQ(group, last), int32(self.lanes), end)
            return body(Patch(number, 1, group, self.lanes, kept=(begin, end - begin)))

        if self.share:
            return loop(self.lanes // self.share, equal, name="sharer")
        first, end = (tirx.floordiv(lane, self.size) for lane in self._ends(number))
        return loop(tirx.min(end, last) - first + 1, any_of, name="sharer")


def _cut(strip: Strip, vectors: int) -> tuple[Run, ...]:
    return cut(strip.blocks, 1 if strip.is_shared else vectors)


def _divided(number: Expr, by: int) -> tuple[Expr, Expr]:
    """A number divided by another, and what it leaves."""
    return (number, 0) if by == 1 else (number // by, number % by)
