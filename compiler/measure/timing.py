"""Timing several engines in one process so that only their own speed differs.

Engines take turns, and who begins moves on by one each round, so that drift of the clock rate and other programs hit
all alike. A turn waits until the threads of the engine before have gone to sleep (pools spin for a while after a run),
runs once untimed to bring back caches and threads, then once timed.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lvc.compiler.pipeline.workspace import Progress, Silence

WARM_UP_RUNS = 2
FEWEST_ROUNDS = 3
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

_QUIET_SLICE = 1e-3
_QUIET_SHARE = 0.3
_LONGEST_WAIT = 0.25  # seconds


@dataclass(frozen=True)
class Timing:
    """The seconds of one engine's timed runs, in order."""

    samples: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def p90(self) -> float:
        return float(np.percentile(self.samples, 90))


def interleave(
    runs: Sequence[Callable[[], object]],
    *,
    seconds: float = 10.0,
    repeats: int | None = None,
    clock: str = "wall",
    progress: Progress | None = None,
) -> list[Timing]:
    """Time each of the runs in turns, for so many rounds or else as many as fit into so many seconds.

    ``clock`` is ``wall``, or ``cpu`` for the processor time of the whole process, which other programs do not disturb
    but which adds up all threads.
    """
    read = CLOCKS[clock]
    for run in runs:
        for _ in range(WARM_UP_RUNS):
            _time(run, read)
    samples: list[list[float]] = [[] for _ in runs]
    started = time.perf_counter()
    rounds = range(repeats) if repeats else itertools.count()
    for number in (progress or Silence()).track(rounds, "timing", repeats):
        for turn in range(len(runs)):
            place = (turn + number) % len(runs)
            _wait_until_quiet()
            _time(runs[place], read)
            samples[place].append(_time(runs[place], read))
        if not repeats and number + 1 >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
    return [Timing(tuple(times)) for times in samples]


@contextmanager
def unpinned() -> Iterator[None]:
    """Undo what happens to this thread's affinity inside: an engine that pins it would pin the pools of the others."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _time(run: Callable[[], object], read: Callable[[], float]) -> float:
    with unpinned():
        before = read()
        run()
        return read() - before


def _wait_until_quiet() -> None:
    """Sleep until this process uses no processor time, but not for ever."""
    deadline = time.perf_counter() + _LONGEST_WAIT
    while time.perf_counter() < deadline:
        wall, used = time.perf_counter(), time.process_time()
        time.sleep(_QUIET_SLICE)
        if time.process_time() - used < _QUIET_SHARE * (time.perf_counter() - wall):
            return
