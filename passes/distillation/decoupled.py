"""The teacher's probabilities in two parts: of the right class, and among the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.distillation.soft_labels import check_temperature, class_scores_of, softened_divergence
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class Decoupled(Term):
    """The teacher's probabilities in two parts: of the right class, and among the others.

    ``alpha`` weighs how sure the teacher is of the right class, ``beta`` how it ranks the others, which soft labels
    weigh little where the teacher is sure. Where there are no labels, or mixed ones, the right class is the teacher's
    first choice. Source: Zhao et al., "Decoupled knowledge distillation", 2022, equation 7.
    """

    name: ClassVar[str] = "decoupled"

    alpha: float = option(1.0, "the weight of the right class")
    beta: float = option(8.0, "the weight of the other classes")
    temperature: float = option(4.0, "how much probabilities are softened")

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        if pair.student.outputs[0].spec.shape[1:2] < (3,):
            raise UsageError("decoupled distillation needs three classes or more", help="take soft-labels")
        return [class_scores_of(pair, self.name)]

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        ours, theirs = student[0].flatten(1), teacher[0].flatten(1)
        right = theirs.argmax(1) if targets is None or targets.is_floating_point() else targets
        is_right = functional.one_hot(right, ours.shape[1]).bool()
        sure = softened_divergence(
            _right_or_not(ours / self.temperature, is_right), _right_or_not(theirs / self.temperature, is_right), 1.0
        )
        among = softened_divergence(_others(ours, is_right), _others(theirs, is_right), self.temperature)
        return self.alpha * sure * self.temperature**2 + self.beta * among


def _right_or_not(scores: torch.Tensor, is_right: torch.Tensor) -> torch.Tensor:
    """Scores ``[N,2]`` of the right class and of all others together."""
    others = scores.masked_fill(is_right, -torch.inf).logsumexp(1)
    return torch.stack([scores[is_right], others], 1)


def _others(scores: torch.Tensor, is_right: torch.Tensor) -> torch.Tensor:
    """The scores ``[N,classes-1]`` of all but the right class."""
    return scores[~is_right].view(len(scores), -1)
