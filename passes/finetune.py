"""Train the model on labelled images.

The graph is trained as it stands, after whatever passes ran before: pruned, factored, with sparse weights or with fake
quantisation. Batch normalisations take the statistics of the batch and dropout is active while it trains; afterwards
both are in evaluation mode again. A tenth of the images is held out to be judged on, unless ``validation=`` names
others.

The last state stays. ``keep=best`` keeps that which did best on the images held out, and is right for images that the
model never saw: what a model has been trained on it knows by heart, and they would choose the state before training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.data.access import Access
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.training.language import TrainingPass
from lvc.passes.training.loss import LOSSES, parse_loss
from lvc.passes.training.objective import ByLabels, Objective


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingPass):
    """Train the model on labelled images."""

    name: ClassVar[str] = "finetune"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    loss: str = option("cross-entropy", f"what is minimised: {', '.join(LOSSES.names())}, or FILE.py:function")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_loss(self.loss)

    @property
    def outside(self) -> int:
        return parse_loss(self.loss).outside

    def objective(self, model: Model, samples: Access, workspace: Workspace, outcome: Outcome) -> Objective:
        return ByLabels(model, parse_loss(self.loss), samples.targets())
