"""A random number for each unit: the control that every other criterion has to beat."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """A random number for each unit: the control that every other criterion has to beat.

    Uniform between 0 and 1, from ``--seed`` and the group's name.
    """

    name: ClassVar[str] = "random"
    needs: ClassVar[Needs] = Needs.WEIGHTS

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(evidence.seed ^ zlib.crc32(group.name.encode()))
        yield torch.rand(group.size, generator=generator, dtype=torch.float64)
