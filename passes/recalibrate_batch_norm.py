"""Estimate the statistics of batch normalisations anew on calibration data.

How, and why, `lvc.passes.fitting.batch_norm` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import MOST_IMAGES, Calibration
from lvc.passes.fitting.batch_norm import recalibrate


@dataclass(frozen=True, kw_only=True)
class RecalibrateBatchNorm(Pass):
    """Estimate the mean and variance of every batch normalisation anew on calibration data."""

    name: ClassVar[str] = "recalibrate-batch-norm"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(MOST_IMAGES, "read at most so many images")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        if not any(calls(model.module.graph, aten.batch_norm.default)):
            outcome.notes.append("no batch normalisation is left to recalibrate; put this pass before fold-batch-norm")
            return outcome
        data = Calibration.read(model, workspace, self.data, self.images)
        recalibrate(model, data, outcome)
        outcome.notes.append(f"{len(outcome.changed)} batch normalisations estimated anew on {data.different} images")
        return outcome
