"""Time by kernel: which part of an artefact takes how long, and how close it comes to the processor's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lvc.compiler.measure.layers import Layer

StepTime = tuple[str, Sequence[str], float]
"""Name of a kernel, the nodes that it computes, seconds of its fastest run."""


@runtime_checkable
class TimesSteps(Protocol):
    """An executable that can time its kernels one by one, and knows the arithmetic of the processor."""

    def time_steps(
        self, inputs: Sequence[np.ndarray], repeats: int, clock: Callable[[], float] = ...
    ) -> list[StepTime]: ...

    def peak_flops(self) -> float: ...


@dataclass(frozen=True)
class Step:
    """One kernel: seconds, its share of all kernels, the multiply-accumulates of its nodes (0 if not known).

    ``title`` is the user's name of what it computes. ``peak`` is how many floating-point operations a second the
    processor can do in single precision (0 if not known).
    """

    name: str
    title: str
    nodes: tuple[str, ...]
    seconds: float
    share: float
    macs: int
    peak: float = 0.0

    @property
    def flops(self) -> float:
        """Floating-point operations a second: two for each multiply-accumulate of the node, however it is computed."""
        return 2 * self.macs / self.seconds if self.seconds else 0.0

    @property
    def peak_share(self) -> float:
        """The part of the processor's arithmetic that it uses; above one where an algorithm or a type saves work."""
        return self.flops / self.peak if self.peak else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "flops": self.flops, "peak_share": self.peak_share}


def steps(times: Sequence[StepTime], layers: Sequence[Layer], peak: float = 0.0) -> list[Step]:
    """Give each kernel its share, its work and its title, from the layers that its nodes are. The first kernel that has
    a node computes it; a later one moves what it made."""
    total = sum(seconds for _, _, seconds in times) or 1.0
    known = {layer.node: layer for layer in layers}
    left = {layer.node: layer.macs for layer in layers}
    return [
        Step(
            name,
            _title(name, [known[node] for node in nodes if node in known]),
            tuple(nodes),
            seconds,
            seconds / total,
            sum(left.pop(node, 0) for node in nodes),
            peak,
        )
        for name, nodes, seconds in times
    ]


def _title(name: str, layers: Sequence[Layer]) -> str:
    """A kernel is called after a node, perhaps with more: ``conv2d_3 to NCHW16c`` changes the layout of its result."""
    if not layers:
        return name
    main = next((layer for layer in layers if layer.node == name.split(" ", maxsplit=1)[0]), layers[0])
    return main.title + name.removeprefix(main.node) if name.startswith(main.node) else main.title
