"""What all passes together may lose at most: the text of ``--max-loss``, and its check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lvc.compiler.data.batches import fed_input
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import FIND_OBJECTS, SEGMENT, task_of_model
from lvc.compiler.measure.comparison.judge import Loss, judged_set, last_loss
from lvc.compiler.measure.comparison.loss import makes_choices
from lvc.compiler.pipeline.held_out import truth_in
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import decibels, percent

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(dB|%)", re.IGNORECASE)
_EXAMPLE = (
    "for example --max-loss 20dB, the signal to noise of every output, or --max-loss 1%, of the first choices, or of "
    "the metric of a detector or a model that segments"
)


@dataclass(frozen=True)
class LossBound:
    """Every output keeps at least so many decibels of signal to noise (``dB``), or makes another first choice on at
    most so many percent of the images (``%``), beside the model as it was loaded. Where there are no choices, the
    metric of the task falls by at most so many percentage points: an average precision of 33.4 % by 1 % to 32.4 %."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> LossBound:
        """Read what ``--max-loss`` was given; `UsageError` if it is neither decibels nor percent."""
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise UsageError(f"'--max-loss {text}' is neither decibels nor percent", help=_EXAMPLE)
        value, unit = float(match[1]), "%" if match[2] == "%" else "dB"
        if unit == "%" and value >= 100:
            raise UsageError(f"'--max-loss {text}' allows everything", help=_EXAMPLE)
        return cls(value, unit)

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"

    def check_request(self, model: Model, workspace: Workspace, ends: Pipeline) -> None:
        """Raise `UsageError` if it cannot be judged whether a model, with ``ends`` behind it, keeps to it."""
        if workspace.data:
            fed_input(model.inputs)
        images = judged_set(model, workspace)
        if images is None:
            raise UsageError(
                "--max-loss needs images to judge on",
                help="give --data calib=PATH, a part of which is held out from passes, or --data judge=PATH",
            )
        if self.unit == "dB" or any(makes_choices(output.spec) for output in model.outputs):
            return
        found = task_of_model(ends.run(model)[0] if len(ends) else model)
        if found not in (*FIND_OBJECTS, SEGMENT):
            raise UsageError(
                f"the loss cannot be bounded by {self}",
                why="no output of the model is class scores or integers, so there are no choices to compare, "
                "and it gives neither boxes nor classes of pixels to be measured",
                help="bound the signal to noise, for example --max-loss 20dB; of a detector's raw head --postprocess "
                "makes boxes",
            )
        if truth_in(workspace.judging_images(images).data) is None:
            raise UsageError(
                f"the loss cannot be bounded by {self}",
                why=f"it would be of what a {found} model is measured by, and '{images}' does not tell what it shows",
                help="give pictures with labels, such as --data judge=FOLDER with 'images' and 'labels' or 'masks' in "
                "it, or bound the signal to noise, for example --max-loss 20dB",
            )

    def check(self, steps: Sequence[Step]) -> None:
        """Raise `CheckError` if the passes that ran have lost more, or if what they lost is not known."""
        loss = last_loss(steps)
        moved = [step for step in steps if step.item.effect is Effect.LOSSY and step.outcome.places]
        if moved and (loss is None or "loss" not in moved[-1].measured):
            raise CheckError(
                f"what {moved[-1].item.name} lost is not known", why="a pass changed the signature of the model"
            )
        if loss is not None and (found := self._broken(loss)):
            raise CheckError(
                found,
                where=f"{loss.images} images {loss.source}",
                why="\n".join(map(_line, moved)),
                help="ask the passes for less, give more images, or allow more; nothing was written",
            )

    def _broken(self, loss: Loss) -> str:
        """Say what the bound is broken by; nothing if it is not."""
        if self.unit == "dB":
            worst = loss.worst
            allowed = worst.sqnr >= self.value
            return "" if allowed else f"output '{worst.name}' is at {decibels(worst.sqnr)}, and {self} are wanted"
        other = {found.name: 1 - found.agreement for found in loss.in_all if found.agreement is not None}
        if not other:
            return self._broken_metric(loss)
        name = max(other, key=other.__getitem__)
        if other[name] * 100 <= self.value + 1e-9:
            return ""
        if any(found.of_objects for found in loss.in_all if found.name == name):
            return f"{percent(other[name], 2)} of the objects of output '{name}' are not found, not {self}"
        return f"output '{name}' makes another first choice on {percent(other[name], 2)} of the images, not {self}"

    def _broken_metric(self, loss: Loss) -> str:
        if loss.score is None or loss.score_as_loaded is None:
            why = f"no metric of the model could be measured on the {loss.images} images {loss.source}"
            raise CheckError("it is not known what the passes lost", why=why, help="give images with objects in them")
        if (loss.score_as_loaded - loss.score) * 100 <= self.value + 1e-9:
            return ""
        scores = f"{percent(loss.score, 2)}, as loaded {percent(loss.score_as_loaded, 2)}"
        return f"the {loss.metric} is {scores}, and may fall by {self}"


def _line(step: Step) -> str:
    loss: Loss = step.measured["loss"]
    alone = f"{decibels(loss.sqnr_alone)} alone, " if loss.alone else ""
    metric = f", {loss.metric} {percent(loss.score, 2)}" if loss.score is not None else ""
    return f"{step.item.name}: {alone}{decibels(loss.worst.sqnr)} in all{metric}"
