"""How much the weights of each unit differ from one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.pipeline.passes import option
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, mean_of_units
from lvc.passes.pruning.histogram import entropy


@dataclass(frozen=True, kw_only=True)
class WeightEntropy(Criterion):
    """How much the weights of each unit differ from one another.

    The entropy of a filter's weights, put into bins of equal width between the layer's least and largest weight: a
    filter of nearly equal weights says little. Source: Meng et al., "Filter grafting for deep neural networks",
    2020, section 3.
    """

    name: ClassVar[str] = "weight-entropy"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    bins: int = option(32, "number of bins")

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in group.producers:
            filters = evidence.rows(member)
            found = entropy(filters, self.bins, (float(filters.min()), float(filters.max())))
            yield mean_of_units(found, member.units, group.size)
