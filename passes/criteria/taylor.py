"""The loss that removing each unit would cost, to first order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, by_edge


@dataclass(frozen=True, kw_only=True)
class Taylor(Criterion):
    """The loss that removing each unit would cost, to first order.

    ``E |sum a * dL/da|``: the sum is over a channel's positions, the mean over the images. Source: Molchanov et al.,
    "Pruning convolutional neural networks for resource efficient inference", 2017, section 2.2, which takes the mean
    over positions; the sum is the estimate of the loss, so that layers of different size compare.
    """

    name: ClassVar[str] = "taylor"
    needs: ClassVar[Needs] = Needs.LABELS
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        return by_edge(evidence, group, lambda edge: evidence.gradients(edge).gates.abs().mean(0))
