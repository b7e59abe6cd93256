"""Train the model to do what a teacher does.

The teacher is the model as it was loaded, or another one. The images need no labels: any pictures of the kind that the
model is for will do, and any task, since outputs are compared as what they are. With labels, a part of the loss is on
them. What of student and teacher is compared, and how it is weighed, is one text, ``losses=``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lvc.compiler.data.access import Access
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.passes import Effect, Outcome, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.training.language import TrainingPass
from lvc.passes.training.loss import LOSSES, parse_loss
from lvc.passes.training.objective import Objective
from lvc.passes.training.pairing import Pair
from lvc.passes.training.teaching import ByTeacher, frozen_teacher, original_of
from lvc.passes.training.term import LABELS, TERMS, parse_terms

ORIGINAL = "original"
_AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Distil(TrainingPass):
    """Train the model to do what a teacher does, on images with or without labels."""

    name: ClassVar[str] = "distil"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    teacher: str = option(ORIGINAL, "original, the model as it was loaded, or another model, as commands name it")
    teacher_weights: str = option("", "a file of weights for a teacher that is a factory")
    teacher_kernels: Literal["torch", "lvc"] = option(
        "torch", "what computes the teacher: torch, in the precision of the steps, or kernels of lvc, in float32"
    )
    losses: str = option(
        _AUTO, f"a sum such as 0.9*soft-labels+0.1*{LABELS}, of {LABELS}, {', '.join(TERMS.names())} (default: by task)"
    )
    loss: str = option("cross-entropy", f"what {LABELS} stands for: {', '.join(LOSSES.names())}, or FILE.py:function")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_loss(self.loss)
        if self.losses != _AUTO:
            parse_terms(self.losses)
        if self.teacher_weights and self.teacher == ORIGINAL:
            raise UsageError("teacher_weights= is for another teacher than the original", help="leave it out")
        if self.teacher_kernels == "lvc" and self.device != "cpu":
            raise UsageError(
                "teacher_kernels=lvc runs on the CPU, and steps are computed elsewhere", help="leave one of them out"
            )

    @property
    def outside(self) -> int:
        return parse_loss(self.loss).outside

    def objective(self, model: Model, samples: Access, workspace: Workspace, outcome: Outcome) -> Objective:
        pair = Pair(model, frozen_teacher(self._teacher(model, workspace)), self.teacher == ORIGINAL)
        pair.check()
        targets = samples.targets()
        text = self._losses(model, labelled=all(target is not None for target in targets))
        outcome.notes.append(f"learns from '{pair.teacher.name}', {self.teacher}, by {text}")
        images = self.images_at_once(workspace.ranks)
        return ByTeacher(
            pair,
            parse_terms(text),
            parse_loss(self.loss),
            targets,
            images,
            ranks=workspace.ranks,
            compile_in=workspace if self.teacher_kernels == "lvc" else None,
        )

    def _teacher(self, model: Model, workspace: Workspace) -> Model:
        if self.teacher != ORIGINAL:
            from pathlib import Path

            from lvc.compiler.load import load

            weights = Path(self.teacher_weights) if self.teacher_weights else None
            shapes = {value.name: value.spec.shape for value in model.inputs}
            return load(self.teacher, weights=weights, shapes=shapes)
        return original_of(workspace)

    def _losses(self, model: Model, *, labelled: bool) -> str:
        """What to learn by, unless the user said it."""
        if self.losses != _AUTO:
            return self.losses
        if not is_class_scores(model.outputs[0].spec.shape) or len(model.outputs) > 1:
            return "outputs"
        return f"0.9*soft-labels+0.1*{LABELS}" if labelled else "soft-labels"
