"""Remove channels and write what is left as products of smaller layers, under one budget.

Channels that a model could spare cost little, and so does what is of low rank; the further either goes, the more each
further step costs. How a budget is best divided between both does not follow from what each costs alone: what pruning
takes away, factors cannot save again. So it is tried: ever more channels go, and factors save what is left to save,
until the outputs on images that nothing was fitted to are further from the original's than with fewer removed. The
first trial is factors alone, the last one pruning alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.passes import Effect, Outcome
from lvc.compiler.pipeline.pipeline import Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import si
from lvc.passes.budget.costs import COSTS, size_of
from lvc.passes.budget.language import BudgetedPass, OutOfReach, out_of_reach, tell_of_missing_data
from lvc.passes.budget.latency import NEAR
from lvc.passes.pruning.trials import Distance, as_decibels, too_dear

PARTS = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 1)
"""How far on the way down channels go, the cost being counted in its logarithm: at 1/2, factors save as large a share
of what is left as pruning did before."""


@dataclass(frozen=True)
class Trial:
    """A model that was pruned and perhaps factored, and the passes that did it.

    ``pruned`` is the share of the original's cost after pruning, ``share`` that of the model as it is, ``error`` the
    squared error of its outputs relative to their variance, where that was measured.
    """

    model: Model
    pruned: float = 1.0
    share: float = 1.0
    steps: tuple[Step, ...] = ()
    error: float = math.nan

    @property
    def name(self) -> str:
        """How the budget is divided, in words."""
        if self.pruned == 1:
            return "factors alone"
        if self.share == self.pruned:
            return "channels alone"
        return f"channels to {self.pruned:.3f}x, then factors"


@dataclass(frozen=True, kw_only=True)
class PruneAndFactor(BudgetedPass):
    """Remove channels and write layers as products of smaller ones, under one budget."""

    name: ClassVar[str] = "prune-and-factor"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    remedy: ClassVar[str] = "a larger share to keep, more calibration images, or training afterwards"

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        (_, share), outcome, trials = self.goal, Outcome(), list[Trial]()
        work = Work(self, model.copy(share_tensors=True), workspace)
        distance = self._distance(model, workspace, outcome)
        misses: list[OutOfReach] = []
        for pruned in self._pruned(work, outcome):
            try:
                trial = pruned if pruned.share <= share else work.run("factor-low-rank", share / pruned.share, pruned)
            except OutOfReach as error:
                misses.append(work.out_of_reach(pruned.share * error.least))
                continue
            trials.append(replace(trial, error=distance.measure(trial.model)) if distance else trial)
            if distance is None or (len(trials) > 1 and trials[-1].error > trials[-2].error):
                break
        if not trials:
            raise min(misses, key=lambda error: error.least)
        best = min(trials, key=lambda one: (one.share > share * (1 + NEAR), one.error)) if distance else trials[0]
        work.keep(best, model)
        outcome.changed += dict.fromkeys(name for step in best.steps for name in step.outcome.changed)
        if distance:
            told = ", ".join(f"{trial.name} {as_decibels(trial.error)}" for trial in trials)
            outcome.notes.append(f"outputs by division of the budget: {told} over {distance.images}")
        sizes = [(cost.name, cost.of(size_of(work.original)), cost.of(size_of(model))) for cost in COSTS.values()]
        told = ", ".join(f"{name} {si(old)} -> {si(new)} ({new / max(1, old):.3f}x)" for name, old, new in sizes)
        outcome.notes.append(f"{best.name}; {told}")
        return outcome

    def _distance(self, model: Model, workspace: Workspace, outcome: Outcome) -> Distance | None:
        """What tells which division is best; None where the first is taken that reaches the budget."""
        data = self.calibration(model, workspace)
        if data is None:
            tell_of_missing_data(outcome)
            return None
        if reason := too_dear(model, data):
            outcome.notes.append(f"no second division of the budget was tried, which may be better: {reason}")
            return None
        return Distance(model, workspace, self.data)

    def _pruned(self, work: Work, outcome: Outcome) -> Iterator[Trial]:
        """The original, and after it ever narrower models, as far as the budget or the channels go."""
        at, (_, share) = Trial(work.original), self.goal
        yield at
        for part in PARTS:
            wanted = share**part / at.share
            if wanted >= 1:
                continue
            try:
                narrower = work.run("prune-channels", wanted, at)
            except OutOfReach as error:
                if error.least < 1:
                    yield work.run("prune-channels", error.least, at)
                return
            if size_of(narrower.model) == size_of(at.model):
                outcome.notes.append("no channels may be removed; --explain says why")
                return
            at = narrower
            yield at


@dataclass(frozen=True)
class Work:
    """What is done to the original to try divisions of the budget of a pass, each on a copy."""

    of: BudgetedPass
    original: Model
    workspace: Workspace

    @property
    def record(self) -> list[Step]:
        """The passes that ran so far."""
        return self.workspace.surroundings.step.inner if self.workspace.surroundings else []

    def run(self, name: str, share: float, on: Trial) -> Trial:
        """Bring a trial's model down to a share of what it costs, by a pass."""
        made: Any = catalogue.PASSES.get(name)
        options = {self.of.goal[0]: math.floor(share * 1e5) / 1e5, "data": self.of.data, "images": self.of.images}
        model, before = on.model.copy(share_tensors=True), len(self.record)
        Pipeline((made(**options),)).run_inside(model, self.workspace)
        left, steps = self._share(model), (*on.steps, *self.record[before:])
        pruned = left if name == "prune-channels" else on.pruned
        return Trial(model, pruned, left, steps)

    def _share(self, model: Model) -> float:
        """What is left of the original's cost."""
        kind, _ = self.of.goal
        if kind == "latency":
            return self.workspace.target_stopwatch().compare(model, self.original).share
        of = COSTS[kind].of
        return of(size_of(model)) / max(1, of(size_of(self.original)))

    def keep(self, best: Trial, model: Model) -> None:
        """Let the model be that of a trial, and the record have the passes that made it."""
        model.module = best.model.module
        kept = {id(step) for step in best.steps}
        self.record[:] = [step for step in self.record if id(step) in kept]

    def out_of_reach(self, least: float) -> OutOfReach:
        kind, _ = self.of.goal
        counted = COSTS[kind].name if kind in COSTS else f"latency on {self.workspace.target_stopwatch().name}"
        why = "no more channels may go then, and every layer that may be factored is at the least ranks that are tried"
        return out_of_reach(self.of.goal, least, counted, why)
