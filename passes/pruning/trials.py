"""Several ways to prune a model, carried out side by side: the one whose outputs stay nearest is kept.

What a ranking promises is an estimate, which on some models is worse than to take the same share of each layer. So
what remains of each is measured, on images that neither was fitted to, in front of functions that close the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.ir.closing import without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison import signal
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.held_out import MOST
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.run import Run
from lvc.compiler.text import decibels, si
from lvc.passes.analysis.channel_groups import Removal
from lvc.passes.pruning.loss import relative_error

MOST_MACS = 2e12
"""A second way is not tried where one run of the model over the calibration data takes more multiply-accumulates."""


@dataclass(frozen=True)
class Trial:
    """A pruned copy of the model, by which ranking it came about, what went, and what is to be said of it."""

    ranking: str
    removal: Removal
    model: Model
    outcome: Outcome


def too_dear(model: Model, data: Calibration) -> str | None:
    """Why no second way is tried on these data; None if it is."""
    work = total_macs(model.module.graph) * len(data)
    return f"a run over the data takes {si(work, 'MACs')}, at most {si(MOST_MACS)}" if work > MOST_MACS else None


class Distance:
    """How far the outputs of models are from the original's, on images for judging what was learnt from a data set."""

    def __init__(self, original: Model, workspace: Workspace, name: str) -> None:
        judging = workspace.judging_images(name)
        self._data = Calibration.draw(original, judging.data, judging.name, workspace.seed, MOST)
        self._wanted = _run(original, self._data)
        self.images = f"{self._data.different} images {judging}"

    def measure(self, model: Model) -> float:
        """The squared error of a model's outputs relative to their variance."""
        return float(relative_error(_run(model, self._data), self._wanted))


def best(trials: Sequence[Trial], original: Model, workspace: Workspace, name: str, outcome: Outcome) -> Trial:
    """Return the trial whose outputs are nearest to the original's, and say how near each is."""
    distance = Distance(original, workspace, name)
    errors = [distance.measure(trial.model) for trial in trials]
    place = min(range(len(trials)), key=errors.__getitem__)
    told = ", ".join(f"{t.ranking} {as_decibels(error)}" for t, error in zip(trials, errors, strict=True))
    outcome.notes.append(f"outputs by ranking: {told} over {distance.images}; kept ranking={trials[place].ranking}")
    return trials[place]


def as_decibels(error: float) -> str:
    """A relative squared error as signal to noise."""
    return decibels(signal.decibels(1.0, error))


def _run(model: Model, data: Calibration) -> list[torch.Tensor]:
    run = Run(without_closing(model))
    outputs = [made for batch in data.batches for made in run.each(batch)]
    return [torch.stack(parts) for parts in zip(*outputs, strict=True)]
