"""The sum of absolute weights of each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class L1(Criterion):
    """The sum of absolute weights of each unit.

    ``sum |w|`` over the unit's slice of each weight. Source: Li et al., "Pruning filters for efficient convnets",
    2017, section 3.1, which looks at the producing layer alone (``reduction=first``).
    """

    name: ClassVar[str] = "l1"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in evidence.weights(group):
            yield of_units(evidence.rows(member).abs().sum(1), member.units, group.size)
