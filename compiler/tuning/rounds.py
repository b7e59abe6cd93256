"""Contestants in turns on one core, here and on boards alike.

Every run finds the caches as in a network: the weights and what is written come from afar, since the second level was
swept, and the inputs have just been written. What counts is the processor time of the thread, which other programs
disturb least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lvc.compiler.tuning.judgement import Judge

SWEPT_BYTES = 4 << 20

clock = time.thread_time


class Steps(Protocol):
    """What runs a contestant by its number, on what lies in the inputs and into the outputs."""

    @property
    def inputs(self) -> Sequence[np.ndarray]: ...

    @property
    def outputs(self) -> Sequence[np.ndarray]: ...

    @property
    def run(self) -> Callable[[int], None]: ...


@runtime_checkable
class RunsSteps(Protocol):
    """An executable whose steps can be run one by one."""

    def stepper(self, inputs: Sequence[np.ndarray], *, in_one: bool = False) -> Steps:
        """What does so. With ``in_one`` all outputs, which have one type, lie in one place."""
        ...


def timed(steps: Steps, inputs: Sequence[np.ndarray]) -> Callable[[int], float]:
    """What runs a contestant and returns its seconds."""
    swept = np.empty(SWEPT_BYTES, np.uint8)

    def run(number: int) -> float:
        swept.fill(1)
        for here, given in zip(steps.inputs, inputs, strict=True):
            np.copyto(here, given)
        started = clock()
        steps.run(number)
        return clock() - started

    return run


def in_turns(
    run: Callable[[int], float],
    racing: Sequence[int],
    control: int,
    judge: Judge,
    watch: Callable[[], None] = lambda: None,
) -> dict[int, list[float]]:
    """Run all in turns, the incumbent being number 0, until the judge is sure; those without hope stop earlier.
    ``watch`` is called after every round."""
    times: dict[int, list[float]] = {number: [] for number in racing}
    active, turn = list(racing), 0
    while True:
        for place in range(len(active)):
            number = active[(place + turn) % len(active)]
            times[number].append(run(number))
        turn += 1
        watch()
        arrays = {number: np.array(times[number]) for number in active}
        hopeless = [n for n in active if n not in (0, control) and judge.is_hopeless(arrays[n], arrays[0])]
        if judge.is_done([arrays[0], *(arrays[n] for n in active if n not in (0, control, *hopeless))]):
            return times
        active = [number for number in active if number not in hopeless]


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this process on the core where it is."""
    try:
        cores = os.sched_getaffinity(0)
        core = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[36])
        os.sched_setaffinity(0, {core})
    except (OSError, AttributeError, IndexError, ValueError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
