"""The share of each unit's squared weights among those of all units that are no smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class Lamp(Criterion):
    """The share of each unit's squared weights among those of all units that are no smaller.

    ``m_u / sum_{m_v >= m_u} m_v`` with ``m`` the sum of squared weights: the largest unit of every layer scores 1, so
    that layers compare and none is emptied. Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based
    pruning", 2021, section 3, on units in place of weights.
    """

    name: ClassVar[str] = "lamp"
    needs: ClassVar[Needs] = Needs.WEIGHTS
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in evidence.weights(group):
            squares = of_units(evidence.rows(member).square().sum(1), member.units, group.size)
            ordered, order = squares.sort()
            rest = ordered.flip(0).cumsum(0).flip(0)
            yield torch.empty_like(squares).index_copy_(0, order, ordered / rest.clamp(min=1e-300))
