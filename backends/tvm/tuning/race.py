"""Races between ways to make one kernel: built, checked and timed in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from lvc.compiler.tuning.rounds import Steps, clock, in_turns, pinned, timed

SECONDS_A_CHOICE = 20.0
"""How long one may take to build and run; a rule's kernel takes a third of a second."""
CONTROL = "control"
"""The name of the incumbent's second build."""

Then = Callable[[list[str], list[Kernel], Tell], None]


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
        told, failures = self.apart(incumbent, challengers, partial(self._time, judge))
        return _result(told, failures) if told else Race({}, np.empty(0), failures)

    def apart(
        self, incumbent: Choice, challengers: Sequence[Choice], then: Then
    ) -> tuple[Told | None, dict[Choice, str]]:
        """Make the kernels of all, by the rule and the incumbent's again as a control, in a process of its own, which
        ``then`` does something with them. Return what that told, None if no challenger is left, and why others were
        left out; `CannotRace` where the rule's or the incumbent is at fault."""
        failures: dict[Choice, str] = {}
        while alive := [choice for choice in challengers if choice not in failures]:
            seconds = SECONDS_A_CHOICE * (len(alive) + 2)
            told = apart(partial(self._make, incumbent, alive, then), seconds)
            failures |= {m["failed"]: m["why"] for m in told.messages if "failed" in m}
            if broken := next((why for who, why in failures.items() if who in (incumbent, self.rule)), ""):
                raise CannotRace(broken)
            if not told.fault:
                return told, failures
            culprit = next((m["at"] for m in reversed(told.messages) if "at" in m), "")
            if culprit not in alive:
                raise CannotRace(told.fault)
            failures[culprit] = told.fault
        return None, failures

    def _make(self, incumbent: Choice, challengers: Sequence[Choice], then: Then, tell: Tell) -> None:
        """What happens in the other process."""
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
        then([*names, CONTROL], [*kernels, again(kernels[0])], tell)

    def _compile(self, kernel: Kernel, *, is_rule: bool) -> None:
        """Compile a kernel, which the cache then has; `_Refused` if TVM does not take its schedule. The rule's runs
        with a plain one then, which others may well beat."""
        program = contest([kernel])
        _, objects = compile_kernels(program.steps, self.generator, Workspace(threads=1))
        if not is_rule and (why := next((made.refused for made in objects.values() if made.refused), "")):
            raise _Refused(f"TVM refused its schedule: {why}")

    def _time(self, judge: Judge, names: list[str], kernels: list[Kernel], tell: Tell) -> None:
        program = contest(kernels)
        files = build_files(program, self.generator, self.target, Workspace(threads=1)).files
        inputs = random_inputs(program)
        with pinned():
            steps = self.device.load(files, 1).stepper(inputs)  # type: ignore[attr-defined]
            racing = right(steps, names, self.rule, tell)
            found = in_turns(timed(steps, inputs), racing, names.index(CONTROL), judge)
        tell({"rounds": {names[number]: times for number, times in found.items()}})


def right(steps: Steps, names: list[str], rule: str, tell: Tell) -> list[int]:
    """Run every contestant once, and tell of those whose results are not the rule's; return the numbers of the others.

    Outputs are one that all write, or one for each.
    """
    wanted = np.empty(0)
    wrong = set()
    for number in sorted(range(len(names)), key=lambda n: names[n] != rule):
        tell({"at": names[number]})
        output = steps.outputs[number % len(steps.outputs)]
        output.view(np.uint8).fill(0)
        steps.run(number)
        if names[number] == rule:
            wanted = output.copy()
        elif why := difference(output, wanted):
            tell({"failed": names[number], "why": why})
            wrong.add(number)
    tell({"at": ""})
    return [number for number in range(len(names)) if number not in wrong]


class _Refused(Exception):
    """A schedule that TVM did not take."""


def _result(told: Told, failures: dict[Choice, str]) -> Race:
    found: dict[str, list[float]] = next((m["rounds"] for m in told.messages if "rounds" in m), {})
    rounds = {name: np.array(times) for name, times in found.items()}
    control = rounds.pop(CONTROL, np.empty(0))
    return Race(rounds, control, failures)


def seconds_of(steps: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The processor time of each step of a model, run once in order."""
    return np.array([seconds for _, _, seconds in steps.time_steps(inputs, 1, clock)])
