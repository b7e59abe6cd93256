"""The kernels of a model that can be made in several ways: what each takes in the model, and where it is raced."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.device import CodeGenerator, Device, Ways
from lvc.backends.tvm.kernel_keys import code_version, structure_key
from lvc.backends.tvm.lower import Lowering
from lvc.backends.tvm.program import Step
from lvc.backends.tvm.tuning.choosing import Chosen
from lvc.backends.tvm.tuning.race import Arena, seconds_of
from lvc.backends.tvm.units import Unit
from lvc.compiler.backend import Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import title
from lvc.compiler.tuning.judgement import BLOCK, Judge
from lvc.compiler.tuning.kernels import Choice, Race, Tunable

if TYPE_CHECKING:
    from lvc.compiler.remote.pool import Pool

ROUNDS = 16
FEWEST_BLOCKS, MOST_BLOCKS, PROOF_SECONDS = 3, 9, 20.0


@dataclass
class TvmKernel:
    """A kernel that a model runs in ``steps``; see `lvc.compiler.tuning.kernels.Kernel`."""

    key: str
    title: str
    ways: Ways
    arena: Races
    work: float
    roof: float = 0.0
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.steps)

    @property
    def problem(self) -> str:
        return self.ways.structure

    @property
    def rule(self) -> Choice:
        return self.ways.rule

    def choices(self) -> Sequence[Choice]:
        return self._ranked

    @cached_property
    def _ranked(self) -> list[Choice]:
        costs = {choice: cycles for choice, cycles in self.ways.all() if choice != self.rule}
        return sorted(costs, key=costs.__getitem__)

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        return self.arena.race(incumbent, challengers, judge)


class Races(Protocol):
    """What runs the races of one kernel; see `lvc.compiler.tuning.kernels.Kernel.race`."""

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race: ...


class Bench(Protocol):
    """Where a model is timed, in terms of the files of its artefact, and how many races can run there at once."""

    @property
    def workers(self) -> int: ...

    @property
    def processor(self) -> str:
        """What its times are known by."""
        ...

    def arena(self, arena: Arena) -> Races:
        """Where the races of a kernel run that an arena makes."""
        ...

    def profile(self, files: Mapping[str, bytes], rounds: int) -> tuple[np.ndarray, float]:
        """The least seconds of each step, and the measured peak in operations a second; 0 where that is not known."""
        ...

    def rounds(self, by_rule: Mapping[str, bytes], tuned: Mapping[str, bytes]) -> np.ndarray:
        """Seconds ``f64[rounds, 3, steps]`` of a model, of a copy of it, and of the same as tuned, in turns. They are
        loaded anew for every block of rounds: where in memory one happens to lie makes it up to a tenth slower than the
        same at another place."""
        ...


@dataclass(frozen=True)
class ThisMachine:
    """See `Bench`."""

    device: Device
    target: Target
    inputs: Sequence[np.ndarray]
    workers: int = 1

    @property
    def processor(self) -> str:
        return self.device.processor(self.target)

    def arena(self, arena: Arena) -> Races:
        return arena

    def profile(self, files: Mapping[str, bytes], rounds: int) -> tuple[np.ndarray, float]:
        executable = self.device.load(files, 1)
        seconds = np.min([seconds_of(executable, self.inputs) for _ in range(rounds)], axis=0)
        peak: float = executable.peak_flops()  # type: ignore[attr-defined]
        return seconds, peak

    def rounds(self, by_rule: Mapping[str, bytes], tuned: Mapping[str, bytes]) -> np.ndarray:
        blocks, started = list[np.ndarray](), time.monotonic()
        while len(blocks) < MOST_BLOCKS and (len(blocks) < FEWEST_BLOCKS or time.monotonic() - started < PROOF_SECONDS):
            order = np.roll((0, 1, 2), len(blocks))
            models = [self.device.load((by_rule, by_rule, tuned)[place], 1) for place in order]
            rounds = [[seconds_of(model, self.inputs) for model in models] for _ in range(BLOCK)]
            blocks.append(np.array(rounds)[:, np.argsort(order)])
        return np.concatenate(blocks)


@dataclass(frozen=True)
class Subject:
    """A model that is tuned for a target of a device, on the boards of a pool or else on this machine."""

    model: Model
    generator: CodeGenerator
    device: Device
    target: Target
    workspace: Workspace
    pool: Pool | None = None

    def tunable(self) -> Tunable:
        """Build the model by its rules, time its steps, and find the kernels among them."""
        lowering = Lowering(self.model, self.generator)
        program = lowering.run()
        files = build_files(program, self.generator, self.target, self.workspace).files
        bench = self._bench()
        seconds, peak = bench.profile(files, ROUNDS)
        numbers = {id(step): number for number, step in enumerate(program.steps)}
        kernels: dict[str, TvmKernel] = {}
        for step, unit in lowering.own:
            ways = self.generator.ways(step.schedule)
            if ways is None:
                continue
            key = structure_key(step.function, ways.structure)
            if key not in kernels:
                arena = Arena(partial(lowering.kernel, unit), ways.rule, self.generator, self.device, self.target)
                work = _work(step, unit, ways)
                kernels[key] = TvmKernel(key, title(origin(unit.anchor)), ways, bench.arena(arena), work)
            kernels[key].steps.append(numbers[id(step)])
        for kernel in kernels.values():
            kernel.seconds = float(seconds[kernel.steps].mean())
        rates = [kernel.work / kernel.seconds for kernel in kernels.values()]
        best = peak or max(rates, default=1.0)
        for kernel in kernels.values():
            kernel.roof = kernel.work / best
        rest = float(seconds.sum() - sum(kernel.seconds * kernel.count for kernel in kernels.values()))
        measure = partial(self._measure, bench, files, list(kernels.values()))
        return Tunable(list(kernels.values()), bench.processor, code_version(), rest, measure, bench.workers)

    def _bench(self) -> Bench:
        inputs = seeded_inputs(self.model.inputs, self.workspace.seed)
        if self.pool is None:
            return ThisMachine(self.device, self.target, inputs)
        from lvc.backends.tvm.tuning.afar import Boards

        return Boards(self.model, self.device, self.target, self.pool, inputs)

    def _measure(
        self,
        bench: Bench,
        by_rule: Mapping[str, bytes],
        kernels: Sequence[TvmKernel],
        choices: Mapping[str, Choice],
    ) -> dict[str, np.ndarray]:
        """See `Tunable.measure`."""
        program = Lowering(self.model, self.generator, Chosen(self.generator, choices)).run()
        tuned = build_files(program, self.generator, self.target, self.workspace).files
        found = bench.rounds(by_rule, tuned)
        chosen = [kernel for kernel in kernels if kernel.key in choices]
        return {"": found.sum(2), **{kernel.key: found[:, :, kernel.steps].sum(2) for kernel in chosen}}


def _work(step: Step, unit: Unit, ways: Ways) -> float:
    """What a kernel does at least, in operations: those of its multiply-adds, or as many as it moves bytes, which is
    about what the second level gives in the time of an operation in single precision."""
    work = 2 * sum(map(macs, unit.nodes)) / ways.saving
    return max(work, sum(argument.bytes for argument in step.arguments))
