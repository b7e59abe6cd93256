"""How often the activations of each unit are not zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, by_edge


@dataclass(frozen=True, kw_only=True)
class Apoz(Criterion):
    """How often the activations of each unit are not zero.

    ``1 - APoZ``, one less the average percentage of zeros over images and positions, where layers read the unit: it
    says something behind a ReLU only. Source: Hu et al., "Network trimming", 2016, section 3.
    """

    name: ClassVar[str] = "apoz"
    needs: ClassVar[Needs] = Needs.DATA

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        return by_edge(evidence, group, lambda edge: 1 - evidence.readings(edge).zeros)
