"""What all passes together may lose at most: the text of ``--max-loss``, and its check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lvc.compiler.data.batches import fed_input
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.judge import Loss, judged_set, last_loss
from lvc.compiler.measure.comparison.loss import makes_choices
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import decibels, percent

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(dB|%)", re.IGNORECASE)
_EXAMPLE = "for example --max-loss 20dB, the signal to noise of every output, or --max-loss 1%, of the first choices"


@dataclass(frozen=True)
class LossBound:
    """Every output keeps at least so many decibels of signal to noise (``dB``), or makes another first choice on at
    most so many percent of the images (``%``), beside the model as it was loaded."""

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

    def check_request(self, model: Model, workspace: Workspace) -> None:
        """Raise `UsageError` if it cannot be judged whether a model keeps to it."""
        if workspace.data:
            fed_input(model.inputs)
        if judged_set(model, workspace) is None:
            raise UsageError(
                "--max-loss needs images to judge on",
                help="give --data calib=PATH, a part of which is held out from passes, or --data judge=PATH",
            )
        if self.unit == "%" and not any(makes_choices(output.spec) for output in model.outputs):
            raise UsageError(
                f"the loss cannot be bounded by {self}",
                why="no output of the model is class scores or integers, so there are no choices to compare",
                help="bound the signal to noise, for example --max-loss 20dB",
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
        name = max(other, key=other.__getitem__)
        if other[name] * 100 <= self.value + 1e-9:
            return ""
        return f"output '{name}' makes another first choice on {percent(other[name], 2)} of the images, not {self}"


def _line(step: Step) -> str:
    loss: Loss = step.measured["loss"]
    alone = f"{decibels(loss.sqnr_alone)} alone, " if loss.alone else ""
    return f"{step.item.name}: {alone}{decibels(loss.worst.sqnr)} in all"
