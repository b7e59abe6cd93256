"""What cost models know of a processor: its caches in bytes, and what it does in a cycle. There is no clock in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

LINE = 64


@dataclass(frozen=True)
class Cache:
    """A cache of so many bytes, in which each line of memory has a choice of so many places."""

    size: int
    ways: int

    def holds(self, rows: int, stride: int) -> bool:
        """Whether rows so many bytes apart keep a line each while all are walked in step.

        Lines whose addresses differ by a multiple of the size of a way share its places, whatever room is left beside.
        """
        way = self.size // self.ways
        lines = Counter(row * stride % way // LINE for row in range(rows))
        return max(lines.values()) <= self.ways


@dataclass(frozen=True)
class Machine:
    """One core: its caches; loads and multiply-adds of whole vectors a cycle, and the cycles until the sums of one may
    take another; bytes a cycle that come from the second level, the third and memory, and from memory where they are
    read from first to last; whether it runs instructions in their order, so that loads and multiply-adds of vectors
    follow one another; and for how many ``threads``, each on such a core, work is cut into tasks.

    The figures only rank choices, so one set of rates does for all cores since Haswell and Zen 2.
    """

    first: Cache = Cache(32 << 10, 8)
    second: Cache = Cache(512 << 10, 8)
    third: Cache = Cache(32 << 20, 16)
    loads: int = 2
    multiply_adds: int = 2
    latency: int = 4
    second_rate: int = 12
    third_rate: int = 6
    memory_rate: int = 6
    stream_rate: int = 6
    in_order: bool = False
    threads: int = 4

    def fetching(self, cycles: float, fetch: float, exposed: float = 0.0) -> float:
        """Cycles of work for which data takes ``fetch`` cycles to come: a core in order does one after the other, and
        another both at once, but for an ``exposed`` share of the fetch."""
        return cycles + fetch if self.in_order else max(fetch, cycles + exposed * fetch)


GENERIC = Machine()
"""What cores since Haswell and Zen 2 have, but for Haswell's smaller second level."""
