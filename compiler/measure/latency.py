"""How fast a model would be on its target: built, run in turns with the model that it is compared with, and timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.backend import check_timed
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.graph import calls, origin
from lvc.compiler.measure.counts import macs
from lvc.compiler.pipeline.workspace import Race, Workspace

if TYPE_CHECKING:
    from lvc.compiler.backend import Executable, Target
    from lvc.compiler.ir.model import Model

PIPELINE = "O2"
"""What a model goes through before it is built, as most are compiled."""

_ROUNDS = 25
_MOST_ROUNDS = 125
_SURE = 0.01
"""Rounds go on until the standard error of the median share is below this, relative to it."""


class TargetStopwatch:
    """Measures models as built for a target; the model that others are compared with is built once.

    On one thread it reads the processor time, which other programs disturb least, else the wall clock.
    """

    def __init__(self, target: str | Target, workspace: Workspace) -> None:
        self._named = target
        self._workspace = workspace
        self._built: tuple[Model, Callable[[], object]] | None = None

    @cached_property
    def target(self) -> Target:
        from lvc.compiler.backend import Target

        return Target.parse(self._named) if isinstance(self._named, str) else self._named

    @property
    def name(self) -> str:
        return self.target.text

    @property
    def channel_multiple(self) -> int:
        """The widths that the target's kernels like are multiples of this."""
        from lvc.compiler.pipeline import catalogue

        return catalogue.BACKENDS.get(self.target.backend).channel_multiple(self.target)

    def compare(self, model: Model, with_model: Model) -> Race:
        """Run two models in turns, on a busy machine for more rounds than on an idle one."""
        from lvc.compiler.bench.measure import interleave

        if self._built is None or self._built[0] is not with_model:
            self._built = (with_model, self._runner(with_model))
        clock = "cpu" if self._workspace.threads == 1 else "wall"
        runs = [self._runner(model), self._built[1]]
        rounds = np.empty((0, 2))
        while len(rounds) < _MOST_ROUNDS and _uncertainty(rounds) > _SURE:
            timings = interleave(runs, repeats=_ROUNDS, clock=clock)
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

    def _runner(self, model: Model) -> Callable[[], object]:
        from lvc.compiler.data.seeded import seeded_inputs

        return partial(self._build(model)[1], *seeded_inputs(model.inputs, self._workspace.seed))

    def _build(self, model: Model) -> tuple[Model, Executable]:
        """Return a model as it is built, and what runs it."""
        from lvc.compiler.pipeline import catalogue
        from lvc.compiler.pipeline.pipeline import Pipeline

        backend = catalogue.BACKENDS.get(self.target.backend)
        optimised, _ = Pipeline.parse(PIPELINE).run(model, self._workspace, completion=backend.completion)
        artefact = backend.build(optimised, self.target, self._workspace)
        try:
            executable = backend.load(artefact, self._workspace.threads)
            check_timed(executable)
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
