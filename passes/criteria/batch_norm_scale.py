"""The scale that batch normalisation gives to each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, batch_norm_scale, mean_of_units


@dataclass(frozen=True, kw_only=True)
class BatchNormScale(Criterion):
    """The scale that batch normalisation gives to each unit.

    ``|gamma|``. A group without batch normalisation is left alone, so prune before `fold-batch-norm`. Source: Liu et
    al., "Learning efficient convolutional networks through network slimming", 2017, section 3.
    """

    name: ClassVar[str] = "batch-norm-scale"
    needs: ClassVar[Needs] = Needs.WEIGHTS
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in group.members:
            scale = batch_norm_scale(evidence, member)
            if scale is not None:
                yield mean_of_units(scale.abs(), member.units, group.size)
