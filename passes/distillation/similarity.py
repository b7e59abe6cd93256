"""Which images of a batch are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional

from lvc.passes.training.pairing import Pair
from lvc.passes.training.term import Term


@dataclass(frozen=True, kw_only=True)
class Similarity(Term):
    """Which images of a batch are alike.

    The products of all pairs of images' last inner values, each row divided by its norm. Source: Tung and Mori,
    "Similarity-preserving knowledge distillation", 2019, equation 4.
    """

    name: ClassVar[str] = "similarity"

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return pair.features[-1:]

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        return (_alike(student[0]) - _alike(teacher[0])).square().sum() / len(student[0])


def _alike(value: torch.Tensor) -> torch.Tensor:
    rows = value.flatten(1)
    return functional.normalize(rows @ rows.T, dim=1)
