"""How the work of one kernel is split into tasks."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.backends.tvm.cpu.machine import GENERIC, Machine

TASKS = 4  # for each thread, at most
FEW = 4  # threads that little work ends together on too
MOST_PARTS = 64
TASK_CYCLES = 120_000  # more tasks than threads are not worth their edges below this
LEAST_CYCLES = 30_000  # below this a task is not worth another thread, which takes some 5,000 cycles to be told
CACHED_SHARE = 0.375  # of the second level, for the data that a task goes through again and again
COPIED_BYTES = 48 << 10  # more of a copy is memory that is waited for and that each thread has for itself
LEAST_SHARE = 20  # margins in a part that is cut for that
PARALLEL_WORK = 1 << 15  # element operations below which starting threads costs more than it gains
ENOUGH_TASKS = 8  # for work that is little more than moving elements
HIDDEN = 4  # times the rate of the third level: most of the time that fetching takes is hidden behind the arithmetic


def row_parts(outer: int, rows: int, tasks: float, threads: int, each: float = 0.0) -> int:
    """Parts to cut ``rows`` into, of which there are ``outer``, for work that is worth so many tasks: at least as many,
    if threads have no more than a few each, and threads that end together. ``each`` is what a part takes beside its
    rows, as a share of what all rows take."""
    wanted = min(TASKS * threads, max(1, int(tasks)))
    threads = _useful(threads, wanted)
    enough = range(min(-(-wanted // outer), rows), min(rows, MOST_PARTS) + 1)
    return min(
        enough, key=lambda parts: _idle(outer * parts, threads) * (-(-rows // parts) * parts / rows + parts * each)
    )


def move_parts(lines: int, elements: int) -> int:
    """Parts to cut so many lines into, where so many elements are moved."""
    return min(max(lines, 1), ENOUGH_TASKS) if elements >= PARALLEL_WORK else 1


def _useful(threads: int, share: int) -> int:
    """The threads that are to end together, of which work is worth a share."""
    return min(threads, max(FEW, share))


def _idle(tasks: int, threads: int) -> float:
    """How much longer it takes than if all threads worked to the end; one task has no other thread to wait for."""
    return -(-tasks // threads) * threads / tasks if tasks > 1 else 1


@dataclass(frozen=True)
class Work:
    """A plane of ``lines`` by ``tiles``, ``cycles`` of arithmetic. A line needs its share of the data (``data`` bytes)
    and ``margin`` lines more, a tile its share of the weights (``weights`` bytes). Where ``is_copied``, each task
    copies its data first, and waits for memory."""

    cycles: float
    lines: int
    tiles: int
    data: int
    weights: int
    margin: float = 0.0
    is_copied: bool = False
    machine: Machine = GENERIC

    def split(self, copies: int) -> tuple[int, int]:
        """The parts (of the lines, of the tiles) that finish first, where ``copies`` of the work are done anyway."""
        size = max(self.cycles, (self.data + self.weights) / self.machine.memory_rate)
        threads = self.machine.threads
        shared = min(threads, int(copies * size / LEAST_CYCLES))
        wanted = -(-min(TASKS * threads, max(1, shared, round(copies * size / TASK_CYCLES))) // copies)
        pairs = [(rows, min(-(-wanted // rows), self.tiles)) for rows in range(1, min(self.lines, MOST_PARTS) + 1)]
        enough = [parts for parts in pairs if parts[0] * parts[1] >= wanted]
        if not enough:
            return self.lines, self.tiles
        enough = [parts for parts in enough if not self._is_large(parts[0])] or enough
        threads = _useful(threads, shared)
        return min(enough, key=lambda parts: self._cost(parts, copies, threads))

    def _is_large(self, rows: int) -> bool:
        """Whether the copies of so many parts of the lines are worth to be cut further."""
        share = -(-self.lines // rows)
        size = self.data * (share + self.margin) / self.lines
        return self.is_copied and size > COPIED_BYTES and share > LEAST_SHARE * self.margin

    def _cost(self, parts: tuple[int, int], copies: int, threads: int) -> float:
        """Cycles of arithmetic, stretched by what the last parts and threads lack, and cycles to fetch the operands."""
        rows, columns = parts
        share = -(-self.lines // rows)
        uneven = share * rows / self.lines * (-(-self.tiles // columns) * columns / self.tiles)
        idle = _idle(rows * columns * copies, threads)
        part_bytes = self.data * (share + self.margin) / self.lines
        machine = self.machine
        passes = columns if part_bytes <= CACHED_SHARE * machine.second.size else self.tiles
        fetched = rows * (passes * part_bytes + self.weights)
        copied = rows * columns * part_bytes * self.is_copied
        return self.cycles * uneven * idle + fetched / (HIDDEN * machine.third_rate) + copied / machine.memory_rate
