"""How good a model is on images that it is not trained on: what chooses the best of its states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lvc.compiler.data.access import Access
from lvc.compiler.errors import CompileError
from lvc.compiler.text import percent
from lvc.passes.training.feed import stack_targets
from lvc.passes.training.form import TrainingForm, to_layout
from lvc.passes.training.objective import Objective, Seen
from lvc.passes.training.speed import PLAIN


@dataclass(frozen=True)
class Verdict:
    """How a model does on ``images``: their mean loss, and how many were right if that can be told."""

    images: int
    loss: float
    right: int | None

    def is_better_than(self, other: Verdict | None) -> bool:
        """Whether it is to be preferred: more images right, or else less loss. NaN is never."""
        if other is None or self.loss != self.loss:
            return other is None
        if self.right is not None and other.right is not None and self.right != other.right:
            return self.right > other.right
        return self.loss < other.loss

    def __str__(self) -> str:
        if self.right is None:
            return f"loss {self.loss:.4g}"
        return f"{percent(self.right / self.images)} right, loss {self.loss:.4g}"


@dataclass(frozen=True)
class Judge:
    """Judges a model in evaluation mode on all samples of a set, by the objective of its training.

    ``counts_right`` is for classifiers with labels, whose scores are the first value that the objective watches.
    """

    samples: Access
    objective: Objective
    counts_right: bool

    @torch.no_grad()
    def __call__(self, form: TrainingForm, layout: torch.memory_format) -> Verdict:
        """Judge a model as it is now."""
        total, right = 0.0, 0
        for inputs, targets, count in self._batches(form):
            with form.here():
                aims = targets if targets is None else targets.to(form.device)
                batch = to_layout(inputs.to(form.device), layout)
                outputs, watched = form.parts([value[:count] for value in form.run(form.evaluation, batch)])
                seen = Seen(batch, outputs, watched, aims, count, PLAIN)
                total += float(sum(part.double() for part in self.objective.judged(seen).values())) * count
            if self.counts_right and aims is not None:
                right += int((watched[0].flatten(1).argmax(1) == aims).sum())
        return Verdict(len(self.samples), total / len(self.samples), right if self.counts_right else None)

    def _batches(self, form: TrainingForm) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, int]]:
        """Yield this process's share of the inputs of a batch, which is filled up with copies of the last, the targets
        of all of them, and how many these are."""
        places = list(self.samples.places)
        size = form.images * form.ranks.count
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            own = [chosen[min(at, len(chosen) - 1)] for at in form.ranks.share(size)]
            inputs = {place: self.samples.read(place) for place in dict.fromkeys(own)}
            stacked = torch.from_numpy(np.concatenate([inputs[place] for place in own]))
            yield stacked, stack_targets([self.samples.target(place) for place in chosen]), len(chosen)


def refuse_nan(loss: float, step: int, saved: str) -> None:
    """Raise `CompileError` for a loss that is no number."""
    if not np.isfinite(loss):
        raise CompileError(
            f"the loss became {loss} at step {step + 1}",
            why="the learning rate is too high for this model, or the data or the loss are at fault",
            help=f"give a smaller lr=, clip=1 or a longer warmup=; {saved}",
        )
