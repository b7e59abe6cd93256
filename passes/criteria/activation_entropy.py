"""How much each unit's activation differs from image to image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.pipeline.passes import option
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, by_edge
from lvc.passes.pruning.histogram import entropy


@dataclass(frozen=True, kw_only=True)
class ActivationEntropy(Criterion):
    """How much each unit's activation differs from image to image.

    The entropy of the channel's mean over positions, its values over the images put into bins of equal width. Source:
    Luo and Wu, "An entropy-based pruning method for CNN compression", 2017.
    """

    name: ClassVar[str] = "activation-entropy"
    needs: ClassVar[Needs] = Needs.DATA

    bins: int = option(32, "number of bins")

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        return by_edge(evidence, group, lambda edge: entropy(evidence.readings(edge).pooled.T, self.bins))
