"""The loss that removing each unit would cost, to second order, by the Fisher information of a gate on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class Fisher(Criterion):
    """The loss that removing each unit would cost, to second order, by the Fisher information of a gate on it.

    ``E (sum a * dL/da)^2 / 2``: the sum is over the positions of the unit's channels in every layer that reads them,
    the mean over the images. Sources: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
    2018; Liu et al., "Group Fisher pruning for practical network compression", 2021, for coupled layers.
    """

    name: ClassVar[str] = "fisher"
    needs: ClassVar[Needs] = Needs.LABELS
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        edges = evidence.edges(group)
        gates = [of_units(evidence.gradients(edge).gates, edge.units, group.size) for edge in edges]
        if gates:
            yield torch.stack(gates).sum(0).square().mean(0) / 2
