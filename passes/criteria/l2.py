"""The Euclidean norm of the weights of each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class L2(Criterion):
    """The Euclidean norm of the weights of each unit.

    ``(sum w^2)^(1/2)`` over the unit's slice of each weight. Source: He et al., "Soft filter pruning for accelerating
    deep convolutional neural networks", 2018, section 3.2.
    """

    name: ClassVar[str] = "l2"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in evidence.weights(group):
            yield of_units(evidence.rows(member).square().sum(1), member.units, group.size).sqrt()
