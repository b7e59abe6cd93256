"""How images lie to each other: distances and angles between what the models make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.compiler.pipeline.passes import option
from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class Relations(Term):
    """How images lie to each other: distances and angles between what the models make of them.

    Each image is a point: the mean over all places of the last inner value. Distances are relative to their mean.
    Source: Park et al., "Relational knowledge distillation", 2019, equations 6 and 9.
    """

    name: ClassVar[str] = "relations"

    distances: float = option(1.0, "the weight of distances between two images")
    angles: float = option(2.0, "the weight of angles between three images")

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return pair.features[-1:]

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        ours, theirs = points(student[0]), points(teacher[0])
        apart = functional.smooth_l1_loss(_distances(ours), _distances(theirs))
        turned = functional.smooth_l1_loss(_angles(ours), _angles(theirs))
        return self.distances * apart + self.angles * turned


def points(value: torch.Tensor) -> torch.Tensor:
    """The mean over the places of images ``[N,C,H,W]`` or rows ``[N,T,C]``."""
    return value.mean((2, 3)) if value.ndim == 4 else value.mean(1)


def _distances(rows: torch.Tensor) -> torch.Tensor:
    found = (rows[:, None] - rows[None]).square().sum(-1).clamp(min=1e-12).sqrt()
    others = ~torch.eye(len(rows), dtype=torch.bool)
    return found * others / found[others].mean().clamp(min=1e-12)


def _angles(rows: torch.Tensor) -> torch.Tensor:
    """The cosine of each angle between two images seen from a third, ``[N,N,N]``."""
    towards = functional.normalize(rows[None] - rows[:, None], dim=2)
    return towards @ towards.transpose(1, 2)
