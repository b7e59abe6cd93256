"""How much worse the layers that read each unit become, once their other weights have made up for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.elimination import State, eliminate
from lvc.passes.pruning.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class OutputError(Criterion):
    """How much worse the layers that read each unit become, once their other weights have made up for it.

    Units go one after another, each time the one that adds least to the squared error of the layers which read the
    group, their remaining weights fitted by least squares; a unit's score is the error at which it goes. An output
    counts by the squared gradient of the model's outputs there. It fits `reconstruct=true`, which sets those weights.
    Source: the structured optimal brain surgeon of Kurtic et al., "ZipLM", 2023, section 3.1.
    """

    name: ClassVar[str] = "output-error"
    needs: ClassVar[Needs] = Needs.DATA
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        states = [
            State(reader, evidence.moments(reader).centred()[0], evidence.gauss_newton(reader))
            for reader in evidence.readers(group)
        ]
        if states:
            yield eliminate(states, group.size)
