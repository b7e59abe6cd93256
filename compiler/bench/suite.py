"""The benchmark suite as data: which models, what was measured of each, and the ratios that are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MODELS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "densenet121",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "inception_v3",
)
OURS = "lvc"
IN_FLOAT = "lvc_fp32"
"""lvc's own build in floating point, beside one in 8 bits; no peer."""


@dataclass(frozen=True)
class Speed:
    """Seconds of one engine: the fastest run and the median."""

    best: float
    median: float


@dataclass(frozen=True)
class Built:
    """What building cost and made: seconds without start-up, from nothing and again with a full cache; bytes.

    ``float_bytes`` are those of the artefact in floating point, where one was made too.
    """

    seconds: float
    seconds_again: float
    artefact_bytes: int
    weight_bytes: int
    activation_bytes: int
    live_bytes: int
    float_bytes: int | None = None


@dataclass(frozen=True)
class Entry:
    """What was measured of one model. ``runs`` are by threads, then by engine.

    ``difference`` is the largest one to PyTorch, relative to the largest output.
    """

    model: str
    inputs: str
    built: Built
    difference: float
    runs: Mapping[int, Mapping[str, Speed]]

    def peers(self, threads: int) -> dict[str, Speed]:
        return {name: speed for name, speed in self.runs[threads].items() if name not in (OURS, IN_FLOAT)}

    def ratio(self, threads: int, peer: str | None = None) -> float:
        """Time of another engine (default: the fastest peer) over lvc's; above one, lvc is faster."""
        runs, peers = self.runs[threads], self.peers(threads).values()
        theirs = runs[peer].best if peer else min(speed.best for speed in peers)
        return theirs / runs[OURS].best

    def scaling(self, threads: int) -> float:
        """How many times faster lvc is on so many threads than on one."""
        return self.runs[1][OURS].best / self.runs[threads][OURS].best

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Entry:
        runs = {
            int(threads): {name: Speed(**speed) for name, speed in engines.items()}
            for threads, engines in data["runs"].items()
        }
        return cls(data["model"], data["inputs"], Built(**data["built"]), data["difference"], runs)


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers; not a number if there are none."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


def engines_of(entries: Sequence[Entry], threads: int) -> list[str]:
    """All engines that were measured on so many threads, lvc first, the others in the order of the first entry."""
    names = dict.fromkeys(name for entry in entries for name in entry.runs.get(threads, {}))
    return sorted(names, key=lambda name: name != OURS)


def threads_of(entries: Sequence[Entry]) -> list[int]:
    """All numbers of threads that were measured."""
    return sorted({threads for entry in entries for threads in entry.runs})
