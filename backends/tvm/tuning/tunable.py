"""The kernels of a model that can be made in several ways: what each takes in the model, and where it is raced."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.device import CodeGenerator, Device, Ways
from lvc.backends.tvm.kernel_keys import code_version, structure_key
from lvc.backends.tvm.lower import Lowering
from lvc.backends.tvm.program import Step
from lvc.backends.tvm.tuning.choosing import Chosen
from lvc.backends.tvm.tuning.race import Arena, seconds_of
from lvc.backends.tvm.units import Unit
from lvc.compiler.backend import Executable, Target
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.graph import origin
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import title
from lvc.compiler.tuning.judgement import BLOCK, Judge
from lvc.compiler.tuning.kernels import Choice, Race, Tunable

ROUNDS = 16
FEWEST_BLOCKS, MOST_BLOCKS, PROOF_SECONDS = 3, 9, 20.0


@dataclass
class TvmKernel:
    """A kernel that a model runs in ``steps``; see `lvc.compiler.tuning.kernels.Kernel`."""

    key: str
    title: str
    ways: Ways
    arena: Arena
    roof: float
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return len(self.steps)

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


@dataclass(frozen=True)
class Subject:
    """A model that is tuned for a target of a device."""

    model: Model
    generator: CodeGenerator
    device: Device
    target: Target
    workspace: Workspace

    def tunable(self) -> Tunable:
        """Build the model by its rules, time its steps, and find the kernels among them."""
        lowering = Lowering(self.model, self.generator)
        program = lowering.run()
        files = build_files(program, self.generator, self.target, self.workspace).files
        executable = self.device.load(files, 1)
        seconds = np.min([self._round(executable) for _ in range(ROUNDS)], axis=0)
        peak: float = executable.peak_flops()  # type: ignore[attr-defined]
        numbers = {id(step): number for number, step in enumerate(program.steps)}
        kernels: dict[str, TvmKernel] = {}
        for step, unit in lowering.own:
            ways = self.generator.ways(step.schedule)
            if ways is None:
                continue
            key = structure_key(step.function, ways.structure)
            if key not in kernels:
                arena = Arena(partial(lowering.kernel, unit), ways.rule, self.generator, self.device, self.target)
                kernels[key] = TvmKernel(key, title(origin(unit.anchor)), ways, arena, _roof(step, unit, ways, peak))
            kernels[key].steps.append(numbers[id(step)])
        for kernel in kernels.values():
            kernel.seconds = float(seconds[kernel.steps].mean())
        rest = float(seconds.sum() - sum(kernel.seconds * kernel.count for kernel in kernels.values()))
        processor = self.device.processor(self.target)
        measure = partial(self._measure, files, list(kernels.values()))
        return Tunable(list(kernels.values()), processor, code_version(), rest, measure)

    def _round(self, executable: Executable) -> np.ndarray:
        return seconds_of(executable, seeded_inputs(self.model.inputs, self.workspace.seed))

    def _measure(
        self, by_rule: Mapping[str, bytes], kernels: Sequence[TvmKernel], choices: Mapping[str, Choice]
    ) -> dict[str, np.ndarray]:
        """See `Tunable.measure`. The models are loaded anew for every block of rounds: where in memory one happens to
        lie makes it up to a tenth slower than the same at another place."""
        program = Lowering(self.model, self.generator, Chosen(self.generator, choices)).run()
        tuned = build_files(program, self.generator, self.target, self.workspace).files
        blocks, started = list[np.ndarray](), time.monotonic()
        while len(blocks) < MOST_BLOCKS and (len(blocks) < FEWEST_BLOCKS or time.monotonic() - started < PROOF_SECONDS):
            order = np.roll((0, 1, 2), len(blocks))
            models = [self.device.load((by_rule, by_rule, tuned)[place], 1) for place in order]
            rounds = [[self._round(model) for model in models] for _ in range(BLOCK)]
            blocks.append(np.array(rounds)[:, np.argsort(order)])
        found = np.concatenate(blocks)  # [rounds, 3, steps]
        chosen = [kernel for kernel in kernels if kernel.key in choices]
        return {"": found.sum(2), **{kernel.key: found[:, :, kernel.steps].sum(2) for kernel in chosen}}


def _roof(step: Step, unit: Unit, ways: Ways, peak: float) -> float:
    """What a kernel takes at least: its multiply-adds at the processor's peak, or as many bytes as that has operations
    in single precision, which is about what the second level gives."""
    work = 2 * sum(map(macs, unit.nodes)) / ways.saving
    return max(work, sum(argument.bytes for argument in step.arguments)) / peak
