"""The options of passes that bring a model down to a goal, most often a share of today's cost, and their mistakes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration

SHARES = {
    "macs": "the share of today's multiply-accumulates to keep",
    "params": "the share of today's parameters to keep",
    "bytes": "the share of today's bytes of weights to keep",
    "latency": "the share of today's latency to keep, measured on the target",
}
"""The options that say how much of a model stays, and what each means."""

DATA = "calib"
"""The data set that is used if there is one."""


@dataclass(frozen=True, kw_only=True)
class BudgetedPass(Pass):
    """A pass that brings a model down to one goal, on calibration data if there are any.

    ``meanings`` are its goals, budgets and perhaps others, and what each is: a share between 0 and 1 unless it is a
    switch or one of ``counts``, the options that are at least 1.
    """

    meanings: ClassVar[Mapping[str, str]] = SHARES
    counts: ClassVar[tuple[str, ...]] = ("images",)

    macs: float | None = option(None, SHARES["macs"])
    params: float | None = option(None, SHARES["params"])
    bytes: float | None = option(None, SHARES["bytes"])
    latency: float | None = option(None, SHARES["latency"])
    data: str = option(DATA, "the calibration data, as named by --data NAME=PATH")
    images: int = option(512, "use at most so many images of it")

    def __post_init__(self) -> None:
        goals = self.goals
        for name in goals.keys() - self.counts:
            if goals[name] is not True and not 0 < goals[name] < 1:
                raise UsageError(
                    f"{name} must be between 0 and 1, not {goals[name]:g}", help=f"it is {self.meanings[name]}"
                )
        if len(goals) > 1:
            raise UsageError(f"{' and '.join(goals)} are both given", help="give one goal")
        for name in self.counts:
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")

    @property
    def goals(self) -> dict[str, float]:
        """The goals that are given: one, but before they are checked."""
        given = {name: getattr(self, name) for name in self.meanings}
        return {name: value for name, value in given.items() if value is not None and value is not False}

    @property
    def goal(self) -> tuple[str, float]:
        """The goal by its name, and its value; `UsageError` if none is given."""
        if not self.goals:
            raise UsageError(
                f"{self.name} was not told how small the model shall become",
                help=f"give a goal, for example {self.name}{{macs=0.5}} to halve the multiply-accumulates",
            )
        ((name, value),) = self.goals.items()
        return name, value

    @property
    def is_budget(self) -> bool:
        """Whether the goal is a share of a cost, over which one search is made."""
        return not SHARES.keys().isdisjoint(self.goals)

    def calibration(self, model: Model, workspace: Workspace) -> Calibration | None:
        """Read the data set if there is one; `UsageError` if one was named that is not there."""
        if self.data == DATA and DATA not in workspace.data:
            return None
        return Calibration.read(model, workspace, self.data, self.images)


def tell_of_missing_data(outcome: Outcome) -> None:
    """Say that weights alone decided."""
    outcome.notes.append(f"by weights alone; a few images, --data {DATA}=PATH, would keep more accuracy")


class OutOfReach(UsageError):
    """A budget that cannot be reached; ``least`` is a share that can."""

    least: float = 1.0


def out_of_reach(goal: tuple[str, float], least: float, of: str, why: str, ways: Iterable[str] = ()) -> OutOfReach:
    """The error for a budget of which at least a share ``least`` stays; ``of`` is what is counted, in sentences."""
    kind, wanted = goal
    reachable = math.ceil(1000 * least - 1e-6) / 1000
    error = OutOfReach(
        f"the budget {kind}={wanted:g} cannot be reached: at least {reachable:.3f} of today's {of} stay",
        why=why,
        help=", ".join(["ask for less", *ways]),
    )
    error.least = reachable
    return error
