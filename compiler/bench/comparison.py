"""One comparison: artefacts and peers on the same inputs, timed in turns, with their outputs compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvc.compiler.bench.engine import Run
from lvc.compiler.measure.device import Device
from lvc.compiler.measure.timing import Timing, unpinned
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.workspace import Progress


@dataclass(frozen=True)
class Contestant:
    """One that is timed: an artefact or a peer, with its version or target; ``results`` makes of what a run gives what
    is compared."""

    name: str
    version: str
    run: Run
    results: Callable[[tuple[np.ndarray, ...]], tuple[np.ndarray, ...]] = tuple


@dataclass(frozen=True)
class Row:
    """What was measured of one contestant, in seconds.

    ``ratio`` is its best time over that of the first contestant: above one, the first is faster. ``difference`` is
    the largest relative difference of its outputs to those of the first.
    """

    name: str
    version: str
    timing: Timing
    ratio: float
    difference: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "min": self.timing.best,
            "median": self.timing.median,
            "p90": self.timing.p90,
            "runs": len(self.timing.samples),
            "ratio": self.ratio,
            "difference": self.difference,
        }


def compare(
    contestants: Sequence[Contestant],
    inputs: tuple[np.ndarray, ...],
    device: Device,
    *,
    seconds: float,
    repeats: int | None,
    clock: str,
    progress: Progress,
) -> list[Row]:
    """Time the contestants in turns, on the device that has them all, and compare each with the first."""
    outputs = []
    for one in contestants:
        with unpinned():
            outputs.append([np.array(part) for part in one.results(one.run(*inputs))])
    calls = [(one.run, inputs) for one in contestants]
    timings = device.time(calls, seconds=seconds, repeats=repeats, clock=clock, progress=progress)
    return [
        Row(one.name, one.version, timing, timing.best / timings[0].best, _difference(found, outputs[0]))
        for one, timing, found in zip(contestants, timings, outputs, strict=True)
    ]


def _difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    if len(found) != len(wanted):
        return float("inf")
    return max(relative_difference(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
