"""How fast a model would be on its target: built, run in turns with the model that it is compared with, and timed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.backend import check_timed
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.measure.counts import macs
from lvc.compiler.measure.device import Call, ThisMachine
from lvc.compiler.pipeline.workspace import Race, Workspace
from lvc.compiler.remote.errors import Retired
from lvc.compiler.running.built import build

if TYPE_CHECKING:
    from lvc.compiler.backend import Executable, Target
    from lvc.compiler.ir.model import Model

_ROUNDS = 25
_MOST_ROUNDS = 125
_SURE = 0.01
"""Rounds go on until the standard error of the median share is below this, relative to it."""


class TargetStopwatch:
    """Measures models as built for a target, by default that which the workspace's device is; the model that others
    are compared with is built once.

    On one thread it reads the processor time, which other programs disturb least, else the wall clock.
    """

    def __init__(self, target: str | Target | None, workspace: Workspace) -> None:
        self._named = target
        self._workspace = workspace
        self._device = workspace.device or ThisMachine()
        self._built: tuple[Model, Call] | None = None

    @cached_property
    def target(self) -> Target:
        from lvc.compiler.backend import Target

        named = self._device.target if self._named is None else self._named
        return Target.parse(named) if isinstance(named, str) else named

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.target.text, self._device.where)))

    @property
    def channel_multiple(self) -> int:
        """The widths that the target's kernels like are multiples of this."""
        from lvc.compiler.pipeline import catalogue

        return catalogue.BACKENDS.get(self.target.backend).channel_multiple(self.target)

    def compare(self, model: Model, with_model: Model) -> Race:
        """Run two models in turns, on a busy machine for more rounds than on an idle one."""
        if self._built is None or self._built[0] is not with_model:
            self._built = (with_model, self.call(with_model))
        clock = "cpu" if self._workspace.threads == 1 else "wall"
        calls = [self.call(model), self._built[1]]
        rounds = np.empty((0, 2))
        while len(rounds) < _MOST_ROUNDS and _uncertainty(rounds) > _SURE:
            timings = self._device.time(calls, repeats=_ROUNDS, clock=clock)
            rounds = np.concatenate([rounds, np.stack([timing.samples for timing in timings], axis=1)])
        mine, other = map(float, rounds.min(axis=0))
        return Race(mine, other, float(np.median(rounds[:, 0] / rounds[:, 1])))

    def layers(self, model: Model) -> dict[str, float]:
        """Measure the kernels of a model: seconds by the origin of the layer in each, and under "" of the rest."""
        from lvc.compiler.bench.steps import TimesSteps
        from lvc.compiler.data.seeded import seeded_inputs

        optimised, executable = self._build(model)
        if not isinstance(executable, TimesSteps):
            raise UsageError(f"the kernels of {self.name} cannot be timed one by one")
        layers = {node.name: origin(node) for node in calls(optimised.module.graph) if macs(node)}
        seconds: dict[str, float] = {}
        for _, nodes, taken in executable.time_steps(seeded_inputs(model.inputs, self._workspace.seed), _ROUNDS):
            place = next((layers[node] for node in nodes if node in layers), "")
            seconds[place] = seconds.get(place, 0.0) + taken
        return seconds

    def call(self, model: Model) -> Call:
        """Return what runs a model on the target, as most are compiled, and inputs for it."""
        from lvc.compiler.data.seeded import seeded_inputs

        return self._build(model)[1], seeded_inputs(model.inputs, self._workspace.seed)

    def _build(self, model: Model) -> tuple[Model, Executable]:
        """Return a model as it is built, and what runs it."""
        from lvc.compiler.verification.oracle import GraphOracle

        optimised, artefact = build(model, self.target, self._workspace)
        try:
            executable = self._device.load(artefact, self._workspace.threads, GraphOracle(optimised))
            check_timed(executable)
        except Retired:
            raise
        except LvcError as error:
            raise UsageError(
                f"latency on {self.name} cannot be measured here",
                why=error.why or error.what,
                help="measure on a machine of that kind, or give another budget in place of latency=",
            ) from error
        return optimised, executable


def _uncertainty(rounds: np.ndarray) -> float:
    """Return the standard error of the median share of rounds ``f64[rounds,2]``, relative to it.

    From the quartiles, as if the shares were normal but for outliers: the spread is their distance over 1.35, and the
    error of a median 1.25 times that of a mean.
    """
    if not len(rounds):
        return float("inf")
    low, middle, high = np.percentile(rounds[:, 0] / rounds[:, 1], (25, 50, 75))
    return float(1.25 * (high - low) / 1.35 / np.sqrt(len(rounds)) / middle)
