"""Races between ways to make one kernel: built, checked and timed in a process of their own.

Every run finds the caches as in a network: the weights and what is written come from afar, since the second level was
swept, and the inputs have just been written. What counts is the processor time of the thread, which other programs
disturb least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lvc.backends.tvm.build import build_files, compile_kernels
from lvc.backends.tvm.device import CodeGenerator, Device, NoSuchWay
from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.tuning.apart import Tell, Told, apart
from lvc.backends.tvm.tuning.contest import again, contest, difference, random_inputs
from lvc.compiler.backend import Target
from lvc.compiler.errors import LvcError
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.tuning.judgement import Judge
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race

SECONDS_A_CHOICE = 20.0
"""How long one may take to build and run; a rule's kernel takes a third of a second."""
SWEPT_BYTES = 4 << 20
_CONTROL = "control"

clock = time.thread_time


@dataclass(frozen=True)
class Arena:
    """Where kernels are raced. ``make`` makes the kernel of a choice, and by the rule of none; `NoSuchWay` for a
    choice that there is not."""

    make: Callable[[Choice], Kernel]
    rule: Choice
    generator: CodeGenerator
    device: Device
    target: Target

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        """See `lvc.compiler.tuning.kernels.Kernel.race`."""
        failures: dict[Choice, str] = {}
        while alive := [choice for choice in challengers if choice not in failures]:
            seconds = SECONDS_A_CHOICE * (len(alive) + 2)
            told = apart(partial(self._run, incumbent, alive, judge), seconds)
            failures |= {m["failed"]: m["why"] for m in told.messages if "failed" in m}
            if broken := next((why for who, why in failures.items() if who in (incumbent, self.rule)), ""):
                raise CannotRace(broken)
            if not told.fault:
                return _result(told, failures)
            culprit = next((m["at"] for m in reversed(told.messages) if "at" in m), "")
            if culprit not in alive:
                raise CannotRace(told.fault)
            failures[culprit] = told.fault
        return Race({}, np.empty(0), failures)

    def _run(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge, tell: Tell) -> None:
        """What happens in the other process."""
        _pin()
        names, kernels = [], []
        for choice in dict.fromkeys((incumbent, self.rule, *challengers)):
            tell({"at": choice})
            try:
                kernel = self.make("" if choice == self.rule else choice)
                self._compile(kernel, is_rule=choice == self.rule)
            except (NoSuchWay, LvcError, _Refused) as error:
                tell({"failed": choice, "why": str(error).splitlines()[0]})
                continue
            names.append(choice)
            kernels.append(kernel)
        tell({"at": ""})
        self._time([*names, _CONTROL], [*kernels, again(kernels[0])], judge, tell)

    def _compile(self, kernel: Kernel, *, is_rule: bool) -> None:
        """Compile a kernel, which the cache then has; `_Refused` if TVM does not take its schedule. The rule's runs
        with a plain one then, which others may well beat."""
        program = contest([kernel])
        _, objects = compile_kernels(program.steps, self.generator, Workspace(threads=1))
        if not is_rule and (why := next((made.refused for made in objects.values() if made.refused), "")):
            raise _Refused(f"TVM refused its schedule: {why}")

    def _time(self, names: list[str], kernels: list[Kernel], judge: Judge, tell: Tell) -> None:
        program = contest(kernels)
        files = build_files(program, self.generator, self.target, Workspace(threads=1)).files
        inputs = random_inputs(program)
        steps = self.device.load(files, 1).stepper(inputs)  # type: ignore[attr-defined]
        swept = np.empty(SWEPT_BYTES, np.uint8)
        racing, wanted = [], np.empty(0)
        for number in sorted(range(len(names)), key=lambda n: names[n] != self.rule):
            tell({"at": names[number]})
            steps.outputs[0].view(np.uint8).fill(0)
            steps.run(number)
            if names[number] == self.rule:
                wanted = steps.outputs[0].copy()
            elif why := difference(steps.outputs[0], wanted):
                tell({"failed": names[number], "why": why})
                continue
            racing.append(number)
        tell({"at": ""})

        def run(number: int) -> float:
            swept.fill(1)
            for here, given in zip(steps.inputs, inputs, strict=True):
                np.copyto(here, given)
            started = clock()
            steps.run(number)
            return clock() - started

        racing.sort()
        found = _rounds(run, racing, names.index(_CONTROL), judge)
        tell({"rounds": {names[number]: times for number, times in found.items()}})


class _Refused(Exception):
    """A schedule that TVM did not take."""


def _rounds(run: Callable[[int], float], racing: list[int], control: int, judge: Judge) -> dict[int, list[float]]:
    """Run all in turns, the incumbent being number 0, until the judge is sure; those without hope stop earlier."""
    times: dict[int, list[float]] = {number: [] for number in racing}
    active, turn = list(racing), 0
    while True:
        for place in range(len(active)):
            number = active[(place + turn) % len(active)]
            times[number].append(run(number))
        turn += 1
        arrays = {number: np.array(times[number]) for number in active}
        hopeless = [n for n in active if n not in (0, control) and judge.is_hopeless(arrays[n], arrays[0])]
        if judge.is_done([arrays[0], *(arrays[n] for n in active if n not in (0, control, *hopeless))]):
            return times
        active = [number for number in active if number not in hopeless]


def _result(told: Told, failures: dict[Choice, str]) -> Race:
    found: dict[str, list[float]] = next((m["rounds"] for m in told.messages if "rounds" in m), {})
    rounds = {name: np.array(times) for name, times in found.items()}
    control = rounds.pop(_CONTROL, np.empty(0))
    return Race(rounds, control, failures)


def _pin() -> None:
    """Keep this process on the core where it is."""
    with suppress(OSError, AttributeError, IndexError, ValueError):
        core = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[36])
        os.sched_setaffinity(0, {core})


def seconds_of(steps: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The processor time of each step of a model, run once in order."""
    return np.array([seconds for _, _, seconds in steps.time_steps(inputs, 1, clock)])
