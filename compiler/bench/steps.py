"""Time by kernel: which part of an artefact takes how long, and how close it comes to the processor's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

StepTime = tuple[str, Sequence[str], float]
"""Name of a kernel, the nodes that it computes, seconds of its fastest run."""


@runtime_checkable
class TimesSteps(Protocol):
    """An executable that can time its kernels one by one."""

    def time_steps(self, inputs: Sequence[np.ndarray], repeats: int) -> list[StepTime]: ...


@dataclass(frozen=True)
class Step:
    """One kernel: seconds, its share of all kernels, the multiply-accumulates of its nodes (0 if not known)."""

    name: str
    nodes: tuple[str, ...]
    seconds: float
    share: float
    macs: int

    @property
    def flops(self) -> float:
        """Floating-point operations a second: two for each multiply-accumulate."""
        return 2 * self.macs / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "flops": self.flops}


def steps(times: Sequence[StepTime], macs: Mapping[str, int]) -> list[Step]:
    """Give each kernel its share and its work, from the work of each node."""
    total = sum(seconds for _, _, seconds in times) or 1.0
    return [
        Step(name, tuple(nodes), seconds, seconds / total, sum(macs.get(node, 0) for node in nodes))
        for name, nodes, seconds in times
    ]
