"""The loss that removing the weights of each unit would cost, by the diagonal of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, of_units


@dataclass(frozen=True, kw_only=True)
class Obd(Criterion):
    """The loss that removing the weights of each unit would cost, by the diagonal of the Hessian.

    ``sum |h| * w^2 / 2`` over the unit's slice of each weight, where ``h`` is the diagonal of the loss's second
    derivatives, estimated by products of the Hessian with random signs. Sources: LeCun et al., "Optimal brain damage",
    1990; Bekas et al., "An estimator for the diagonal of a matrix", 2007.
    """

    name: ClassVar[str] = "obd"
    needs: ClassVar[Needs] = Needs.LABELS
    comparable: ClassVar[bool] = True

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        for member in evidence.weights(group):
            weight, curvature = evidence.rows(member), evidence.rows(member, evidence.curvature(member.tensor))
            yield of_units((curvature.abs() * weight.square()).sum(1) / 2, member.units, group.size)
