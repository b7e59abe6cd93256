"""How far the filter of each unit is from all others: one near their middle can be replaced by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, mean_of_units


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(Criterion):
    """How far the filter of each unit is from all others: one near their middle can be replaced by them.

    ``sum_j ||w_i - w_j||`` over the filters of each producing layer. Source: He et al., "Filter pruning via geometric
    median for deep convolutional neural networks acceleration", 2019.
    """

    name: ClassVar[str] = "geometric-median"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in group.producers:
            filters = evidence.rows(member)
            yield mean_of_units(torch.cdist(filters, filters).sum(1), member.units, group.size)
