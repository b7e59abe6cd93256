"""The Lp norm of the weights of each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class Lp(Criterion):
    """The Lp norm of the weights of each unit.

    ``(sum |w|^p)^(1/p)`` over the unit's slice of each weight: below 1 it counts weights, far above 2 it sees the
    largest alone. Source: as for l1 and l2, of which it is the family.
    """

    name: ClassVar[str] = "lp"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    p: float = option(0.5, "the power, above 0")

    def __post_init__(self) -> None:
        if not 0 < self.p < float("inf"):
            raise UsageError(f"p must be a number above 0, not {self.p:g}")

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in evidence.weights(group):
            powers = evidence.rows(member).abs().pow(self.p).sum(1)
            yield of_units(powers, member.units, group.size).pow(1 / self.p)
