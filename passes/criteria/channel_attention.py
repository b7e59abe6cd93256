"""How far a squeeze-and-excitation gate, learned on the data, opens for each unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.fx import Node

from lvc.compiler.ir.layers import contraction
from lvc.compiler.pipeline.passes import option
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.criterion import Criterion, Needs
from lvc.passes.pruning.edges import Edge, Taps, sample_sums
from lvc.passes.pruning.evidence import Evidence, mean_of_units
from lvc.passes.pruning.loss import relative_error


@dataclass(frozen=True, kw_only=True)
class ChannelAttention(Criterion):
    """How far a squeeze-and-excitation gate, learned on the data, opens for each unit.

    Before the layers that read a group stands ``sigmoid(V relu(U z))``, where ``z`` is each channel's mean over
    positions. The gates of all groups learn together, the network itself stays: its outputs shall move little, and the
    gates close where they can. The score is the mean gate over the images. Sources: Hu et al., "Squeeze-and-excitation
    networks", 2018; Yamamoto and Maeno, "PCAS: pruning channels with attention statistics", 2018.
    """

    name: ClassVar[str] = "channel-attention"
    needs: ClassVar[Needs] = Needs.DATA

    epochs: int = option(3, "how often the gates see the data")
    rate: float = option(0.01, "the learning rate")
    pressure: float = option(0.1, "how much an open gate costs, beside the squared relative error of the outputs")

    def importance(self, group: ChannelGroup, evidence: Evidence) -> Iterator[torch.Tensor]:
        gates = evidence.once(self, lambda: self._learn(evidence))
        if group.name in gates:
            yield gates[group.name]

    def _learn(self, evidence: Evidence) -> dict[str, torch.Tensor]:
        """Train the gates of all groups, and return the mean of each over the images."""
        groups = [group for group in evidence.channels.free if evidence.edges(group)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(evidence.seed)
            gated = Gated(evidence, groups)
        plain = Taps(evidence.model, (), differentiable=True)
        optimiser = torch.optim.Adam(gated.gates.parameters(), self.rate)
        batches = [batch for _ in range(self.epochs) for batch in evidence.data.inputs]
        for batch in evidence.progress.track(batches, "learning gates"):
            with torch.no_grad():
                (wanted,) = plain.run(batch)
            (found,) = gated.run(batch)
            pressure = self.pressure * torch.stack([g.mean() for g in gated.open.values()]).mean()
            loss = relative_error(found, wanted) + pressure
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return gated.means(evidence.data.inputs)


class Gated(Taps):
    """Runs a model with a gate on each unit of each group; ``open`` has the gates of the last run.

    Gates learn from one input of the signature's size at a time.
    """

    def __init__(self, evidence: Evidence, groups: Sequence[ChannelGroup]) -> None:
        self._at: dict[Node, list[tuple[ChannelGroup, Edge]]] = {}
        for group in groups:
            for edge in evidence.edges(group):
                self._at.setdefault(edge.layer, []).append((group, edge))
        super().__init__(evidence.model, self._at, differentiable=True)
        self.gates = nn.ModuleList(_gate(group.size) for group in groups)
        self._gate_of = {group.name: gate for group, gate in zip(groups, self.gates, strict=True)}
        self.open: dict[str, torch.Tensor] = {}

    def run(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        self.open, self._images = {}, len(batch)
        return super().run(batch)

    def tap(self, layer: Node, value: torch.Tensor) -> torch.Tensor:
        for group, edge in self._at[layer]:
            if group.name not in self.open:
                self.open[group.name] = self._gate_of[group.name](self._squeeze(value, group, edge))
            gate = torch.where(edge.units >= 0, self.open[group.name][:, edge.units], 1.0)
            rows = value.movedim(contraction(layer).axis, -1)
            opened = (rows.reshape(len(gate), -1, rows.shape[-1]) * gate[:, None]).reshape(rows.shape)
            value = opened.movedim(-1, contraction(layer).axis)
        return value

    def _squeeze(self, value: torch.Tensor, group: ChannelGroup, edge: Edge) -> torch.Tensor:
        """Return the mean of each unit in each image, each unit scaled to unit mean square, ``f32[images,size]``."""
        means = mean_of_units(sample_sums(edge.layer, value.detach(), self._images), edge.units, group.size)
        return (means / means.square().mean(0).sqrt().clamp(min=1e-6)).float()

    def means(self, batches: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the mean gate of each unit over all images."""
        sums: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for batch in batches:
                self.run(batch)
                for name, gate in self.open.items():
                    sums[name] = sums.get(name, torch.zeros(())) + gate.double().mean(0) / len(batches)
        return sums


def _gate(size: int) -> nn.Module:
    hidden = max(4, size // 4)
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size), nn.Sigmoid())
