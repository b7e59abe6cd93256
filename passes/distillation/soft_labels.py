"""The teacher's probabilities of the classes, softened by a temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.passes import option
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class SoftLabels(Term):
    """The teacher's probabilities of the classes, softened by a temperature.

    ``T^2 KL(softmax(teacher / T) || softmax(student / T))`` of the first output. Source: Hinton et al., "Distilling the
    knowledge in a neural network", 2015, section 2.
    """

    name: ClassVar[str] = "soft-labels"

    temperature: float = option(4.0, "how much probabilities are softened")

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return [class_scores_of(pair, self.name)]

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        return softened_divergence(student[0].flatten(1), teacher[0].flatten(1), self.temperature)


def softened_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))`` over the last dimension, the mean over all others."""
    ours = functional.log_softmax(student / temperature, -1).flatten(0, -2)
    theirs = functional.log_softmax(teacher / temperature, -1).flatten(0, -2)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def class_scores_of(pair: Pair, name: str) -> tuple[Node, Node]:
    """Return the first outputs; `UsageError` if they are no scores of classes."""
    if not is_class_scores(pair.student.outputs[0].spec.shape):
        raise UsageError(
            f"{name} compares scores of classes, and the first output is {pair.student.outputs[0]}",
            help="compare the outputs as what they are: losses=outputs",
        )
    return pair.outputs[0]


def check_temperature(temperature: float) -> None:
    """Raise `UsageError` for a temperature that is not above 0."""
    if not temperature > 0:
        raise UsageError(f"temperature must be above 0, not {temperature:g}")
