"""The mean absolute gradient of the loss with respect to the activations of each unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.evidence import Evidence, by_edge


@dataclass(frozen=True, kw_only=True)
class Gradient(Criterion):
    """The mean absolute gradient of the loss with respect to the activations of each unit.

    ``E |dL/da|``, the mean over images and positions. Source: Liu and Wu, "Channel pruning based on mean gradient for
    accelerating convolutional neural networks", 2019.
    """

    name: ClassVar[str] = "gradient"
    needs: ClassVar[Needs] = Needs.LABELS

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        return by_edge(evidence, group, lambda edge: evidence.gradients(edge).mean)
