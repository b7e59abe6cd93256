"""The mean absolute activation of each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, by_edge


@dataclass(frozen=True, kw_only=True)
class ActivationMean(Criterion):
    """The mean absolute activation of each unit.

    ``E |a|`` over images and positions, where layers read the unit. Source: Molchanov et al., "Pruning convolutional
    neural networks for resource efficient inference", 2017, section 2.2 (activation).
    """

    name: ClassVar[str] = "activation-mean"
    needs: ClassVar[Needs] = Needs.DATA

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        return by_edge(evidence, group, lambda edge: evidence.readings(edge).mean)
