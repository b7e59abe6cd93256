"""What pruning did to a model: sizes and widths before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import Totals, totals
from lvc.compiler.pipeline.passes import Outcome, Table
from lvc.compiler.pipeline.workspace import Stopwatch
from lvc.compiler.text import duration, si
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.pruning.history import Removed

MISSED = 0.05
"""How far from its target a latency may be, relative to it, before the report calls it missed."""


@dataclass
class Width:
    """The channels of a group in the weight of the first layer that produces them, and which of those are left.

    ``units`` has the unit of each index along the weight's dimension, ``i64[n]``, -1 for those of other groups, and
    ``left`` the indices of the original that are still there.
    """

    layer: str
    tensor: str
    dim: int
    units: torch.Tensor
    left: torch.Tensor

    @classmethod
    def of(cls, group: ChannelGroup) -> Width:
        first = group.producers[0]
        return cls(first.layer, first.tensor, first.dim, first.units, torch.arange(len(first.units)))

    @property
    def before(self) -> int:
        return int((self.units >= 0).sum())

    @property
    def after(self) -> int:
        return int((self.units[self.left] >= 0).sum())


@dataclass(frozen=True)
class Account:
    """Sizes of a model before it was pruned, and the widths of the groups that might be, by name.

    Channels are counted, and followed through each removal, for what is left of a group may be other units than before:
    where one of two rows of channels remains, each channel is a unit of its own.
    """

    size: Totals
    widths: dict[str, Width]

    @classmethod
    def open(cls, model: Model, groups: Sequence[ChannelGroup]) -> Account:
        return cls(totals(layers(model)), {group.name: Width.of(group) for group in groups})

    def follow(self, removed: Removed) -> None:
        """Take note of a removal."""
        masks = {tensor: removed.kept[node] for tensor, node in removed.stored.items()}
        for width in self.widths.values():
            mask = masks[width.tensor][width.dim] if width.tensor in masks else None
            if mask is not None and len(mask) == len(width.left):
                width.left = width.left[mask]

    def close(self, model: Model, outcome: Outcome) -> None:
        """Say what changed; without groups whose removals were not all followed, such as those before a checkpoint."""
        sizes = {str(node.target): spec(node).shape for node in model.module.graph.nodes if node.op == "get_attr"}
        followed = {
            name: width
            for name, width in self.widths.items()
            if width.tensor not in sizes or sizes[width.tensor][width.dim] == len(width.left)
        }
        rows = [(name, width.before, width.after) for name, width in followed.items()]
        narrower = [(name, width, left) for name, width, left in rows if left < width]
        for name, _, _ in narrower:
            outcome.change(followed[name].layer)
        size = totals(layers(model))
        pairs = [
            ("MACs", self.size.macs, size.macs),
            ("parameters", self.size.parameters, size.parameters),
            ("bytes", self.size.weight_bytes, size.weight_bytes),
        ]
        outcome.notes.append(
            f"{len(narrower)} of {len(rows)} groups narrowed; "
            + ", ".join(f"{name} {si(old)} -> {si(new)} ({new / max(1, old):.3f}x)" for name, old, new in pairs)
        )
        shares = [(name, old, new, round(new / max(1, old), 4)) for name, old, new in pairs]
        outcome.tables.append(Table("sizes", ("", "before", "after", "share"), tuple(shares)))
        outcome.tables.append(Table("widths", ("group", "before", "after"), tuple(rows)))

    def time(self, before: Model, after: Model, stopwatch: Stopwatch, share: float, outcome: Outcome) -> None:
        """Say how fast the model has become, of which ``share`` of its latency was wanted."""
        race = stopwatch.compare(after, before)
        outcome.notes.append(
            f"latency on {stopwatch.name} {race.share:.3f}x, in turns (at best {duration(race.other)} before, "
            f"{duration(race.seconds)} after)"
        )
        if abs(race.share / share - 1) > MISSED:
            outcome.notes.append(
                f"that misses the target of {share:g}x: widths go in steps, and on a busy machine times mean little; "
                "try again on an idle one, with --threads 1, or with another target"
            )
        row = ("seconds", race.other, race.seconds, race.share)
        outcome.tables.append(Table("latency", ("", "before", "after", "share"), (row,)))
