"""The account of a model's kernels for a GPU: the estimates of `lvc.backends.tvm.gpu.estimate` as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.estimate import Estimate, KernelEstimate, estimate
from lvc.compiler.backend import Target
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.ir.layers import CONVOLUTIONS
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted, duration, percent, table

LARGE = 50_000_000  # multiply-adds of a convolution whose share of the roofline is told by itself
HEADERS = (
    "kernel",
    "kind",
    "times",
    "blocks",
    "threads",
    "registers",
    "shared",
    "resident",
    "warps",
    "limit",
    "spills",
    "M multiply-adds",
    "MB",
    "roofline",
    "bound",
    "estimate",
    "of roofline",
    "measured",
)


@dataclass(frozen=True)
class GpuAccount:
    """The estimate of a model, the origins of its nodes, and which of them are convolutions."""

    estimate: Estimate
    origins: Mapping[str, str]
    convolutions: frozenset[str]

    @property
    def spilling(self) -> int:
        """Different kernels that spill."""
        return sum(bool(kernel.spills) for kernel in self._times())

    def describe(self) -> str:
        """One row for each different kernel in the order of the model; what its launches differ in, joined by +."""
        rows = [self._row(kernel, times) for kernel, times in self._times().items()]
        return table(HEADERS, rows, "llrrrrrrrlrrrrlrrr")

    def summary(self) -> str:
        """The sentences about a whole run."""
        found, gpu = self.estimate, self.estimate.gpu
        board = f"{gpu.line} at {gpu.clock} GHz with {gpu.bandwidth:.0f} GB/s: not measured"
        launching = f"{duration(found.launching)} of it to launch, {found.launches} times"
        lines = [
            f"estimate: {duration(found.seconds)} a run, {launching}; roofline {duration(found.roofline)}; {board}",
            f"{counted(self.spilling, 'kernel')} of {len(self._times())} spill",
        ]
        layers = [kernel for kernel in found.kernels if self.convolutions.intersection(kernel.nodes)]
        if large := sorted(kernel.share for kernel in layers if kernel.macs > LARGE):
            each = f"{percent(large[0])} to {percent(large[-1])} of the roofline"
            lines.append(f"{counted(len(large), 'convolution')} above {LARGE // 10**6} M multiply-adds: {each}")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        found = self.estimate
        total = {name: getattr(found, name) for name in ("seconds", "roofline", "launching", "launches")}
        kernels = [
            {**asdict(kernel), "seconds": kernel.seconds, "share": kernel.share, "times": times}
            for kernel, times in self._times().items()
        ]
        return {"gpu": asdict(found.gpu), "estimate": total, "measured": None, "kernels": kernels}

    def _times(self) -> dict[KernelEstimate, int]:
        """The first of those that share their launches, and how often they run."""
        times = Counter(kernel.launches for kernel in self.estimate.kernels)
        first = {kernel.launches: kernel for kernel in reversed(self.estimate.kernels)}
        return {first[launches]: count for launches, count in times.items()}

    def _row(self, kernel: KernelEstimate, times: int) -> tuple[object, ...]:
        launches = kernel.launches

        def each(*values: object) -> str:
            return " + ".join(map(str, values))

        return (
            self.origins.get(kernel.name, kernel.name),
            kernel.kind,
            times,
            each(*(one.launch.blocks for one in launches)),
            each(*(one.launch.threads for one in launches)),
            each(*(one.usage.registers for one in launches)),
            each(*(one.usage.shared for one in launches)),
            each(*(one.occupancy.blocks for one in launches)),
            each(*(one.occupancy.warps for one in launches)),
            each(*(one.occupancy.limit for one in launches)),
            kernel.spills,
            f"{kernel.macs / 1e6:.2f}",
            f"{kernel.bytes / 1e6:.2f}",
            duration(kernel.roofline),
            kernel.bound,
            duration(kernel.seconds),
            percent(kernel.share),
            "not measured",
        )


def gpu_account(model: Model, target: Target, workspace: Workspace) -> GpuAccount:
    """That of a rewritten model; `CompileError` where its code cannot be made."""
    if lacking := BACKEND.missing(target):
        raise lacking
    nodes = list(calls(model.module.graph))
    parts = BACKEND.build(model, target, workspace).parts
    assert isinstance(parts, Parts)
    return GpuAccount(
        estimate(parts, {node.name: macs(node) for node in nodes}),
        {node.name: origin(node) for node in nodes},
        frozenset(node.name for node in nodes if node.target in CONVOLUTIONS),
    )
