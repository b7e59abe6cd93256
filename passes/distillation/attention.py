"""Where inner values are large: maps of attention."""

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
class Attention(Term):
    """Where inner values are large: maps of attention.

    The map of a value is the sum of its squares over the channels, divided by its norm; maps are compared by the norm
    of their difference, whatever the widths are. Source: Zagoruyko and Komodakis, "Paying more attention to attention",
    2017, equation 2, with p = 2.
    """

    name: ClassVar[str] = "attention"

    def nodes(self, pair: Pair) -> Sequence[tuple[Node, Node]]:
        return pair.features

    def __call__(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        own: Mapping[str, torch.nn.Parameter],
        targets: torch.Tensor | None,
    ) -> torch.Tensor:
        apart = [(_map(ours) - _map(theirs)).norm(dim=1).mean() for ours, theirs in zip(student, teacher, strict=True)]
        return torch.stack(apart).sum()


def _map(value: torch.Tensor) -> torch.Tensor:
    """Return where a value is large, ``[N,places]`` of norm 1."""
    squares = value.square().sum(1 if value.ndim == 4 else 2)
    return functional.normalize(squares.flatten(1), dim=1)
