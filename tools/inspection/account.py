"""An account of the kernels of a model for a target: their loops, their tiles, and what is suspect about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inspection.assembly import functions
from inspection.caches import Footprint, footprint
from inspection.estimate import Pace, pace, seconds
from inspection.loops import Counts, Loop, loops, reductions, whole
from inspection.throughput import core_of
from lvc.backends.tvm.build import compile_kernels
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.legality import multiplied_dtypes
from lvc.backends.tvm.lower import lower
from lvc.backends.tvm.object_cache import Object
from lvc.backends.tvm.program import Step
from lvc.compiler.backend import Target
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.workspace import Workspace

ENTRY = "__tvm"
"""What the names of functions around a kernel's loops begin with."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that multiplies and adds. ``name`` is where its layer came from, ``node`` the name of that in the graph,
    ``times`` how often the model calls it, ``share`` its part of the model's multiply-accumulates.

    ``loops`` are its reductions; ``footprint`` is what its tile asks of the caches, if it has a tile of its own.
    """

    name: str
    node: str
    kind: str
    times: int
    share: float
    loops: tuple[Counts, ...]
    footprint: Footprint | None
    level: str
    suspicions: tuple[str, ...]
    pace: Pace | None = None

    @property
    def spills(self) -> int:
        """Accesses of vectors to the stack in the loop that has most."""
        return max((loop.spills for loop in self.loops), default=0)

    @property
    def hot(self) -> Counts:
        """The loop with most multiply-adds."""
        return max(self.loops, key=lambda loop: loop.multiply_adds, default=Counts())

    def to_json(self) -> dict[str, Any]:
        """The kernel as plain data."""
        tile = self.footprint and {k: v for k, v in vars(self.footprint).items() if k != "operand"}
        described = {"operand": self.footprint.operand.name, "level": self.level} if self.footprint else {}
        return {
            **{k: getattr(self, k) for k in ("name", "node", "kind", "times", "suspicions")},
            "share": round(self.share, 5),
            "tile": {**tile, **described} if tile else None,
            "loops": [asdict(loop) for loop in self.loops],
            "estimate": asdict(self.pace) if self.pace else None,
        }


@dataclass(frozen=True)
class Account:
    """The contractions of a model, those that are suspect first, then those that compute most; and the estimated
    ``seconds`` of all its kernels one after the other, on one thread, 0 for a processor that has no estimate."""

    kernels: list[Kernel]
    seconds: float = 0.0


def account(model: Model, target: Target, workspace: Workspace) -> Account:
    """That of a rewritten model for a target."""
    counts = {node.name: macs(node) for node in calls(model.module.graph)}
    origins = {node.name: origin(node) for node in calls(model.module.graph)}
    generator = CpuCodeGenerator.of(target, multiplied_dtypes(model))
    vector = generator.vector
    steps = lower(model, generator).steps
    names, objects = compile_kernels(steps, generator, workspace)
    times, work = Counter(names), Counter[str]()
    for step, name in zip(steps, names, strict=True):
        work[name] += sum(counts.get(node, 0) for node in step.nodes)
    total = sum(work.values()) or 1
    first = {name: step for step, name in reversed(list(zip(steps, names, strict=True)))}
    found = [
        _kernel(first[name], objects[name], (target, vector), (times[name], work[name] / total), origins)
        for name in work
        if work[name]
    ]
    found.sort(key=lambda kernel: (not kernel.suspicions, -kernel.spills, -kernel.share))
    if not (core := core_of(target.cpu)):
        return Account(found)
    paces = {kernel.node: kernel.pace for kernel in found}
    each = {name: seconds(step, paces.get(step.name), vector, core) for name, step in first.items()}
    return Account(found, sum(each[name] for name in names))


def _kernel(
    step: Step, made: Object, unit: tuple[Target, Vector], weight: tuple[int, float], origins: dict[str, str]
) -> Kernel:
    schedule: Any = step.schedule
    target, vector = unit
    core = core_of(target.cpu)
    problem = getattr(schedule, "problem", None)
    tile = footprint(problem, vector)
    found = reductions_of(made.code)
    counts = tuple(loop.counts for loop in found)
    return Kernel(
        name=origins.get(step.name, step.name),
        node=step.name,
        kind=type(problem).__name__ if problem else "general schedule",
        times=weight[0],
        share=weight[1],
        loops=counts,
        footprint=tile,
        level=tile.level(vector.machine) if tile else "",
        suspicions=(*_of_code(counts, made), *(tile.suspicions(vector) if tile else ())),
        pace=pace(found, core) if core else None,
    )


def reductions_of(code: bytes) -> tuple[Loop, ...]:
    """The reductions of a kernel's object file; all of it where it multiplies and adds in no loop."""
    own = [function for function in functions(code) if not function.name.startswith(ENTRY)]
    if found := [loop for function in own for loop in reductions(loops(function))]:
        return tuple(found)
    return tuple(loop for function in own if (loop := whole(function)).counts.multiply_adds)


def _of_code(counts: Sequence[Counts], made: Object) -> list[str]:
    found = [f"it got a plain schedule: {made.refused}"] if made.refused else []
    if not counts:
        found.append("it multiplies and adds no vectors")
    if spilt := max(counts, key=lambda loop: loop.spills, default=Counts()).spills:
        found.append(f"{spilt} vectors go to and from the stack in a turn of a reduction")
    return found
