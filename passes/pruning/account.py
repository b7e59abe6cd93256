"""What pruning did to a model: sizes and widths before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lvc.compiler.graph import spec
from lvc.compiler.inspection import Totals, layers, totals
from lvc.compiler.model import Model
from lvc.compiler.passes import Outcome, Table
from lvc.compiler.text import duration, si
from lvc.compiler.workspace import Stopwatch
from lvc.passes.analysis.channel_groups import ChannelGroup

MISSED = 0.05
"""How far from its target a latency may be, relative to it, before the report calls it missed."""


@dataclass(frozen=True)
class Width:
    """How many channels a layer that produces some has, by the stored tensor and the dimension that hold them."""

    layer: str
    tensor: str
    dim: int
    channels: int

    def now(self, sizes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the channels of today, by the sizes of stored tensors; a tensor that is gone took all of its own."""
        return sizes[self.tensor][self.dim] if self.tensor in sizes else 0


@dataclass(frozen=True)
class Account:
    """Sizes of a model before it was pruned, and the widths of the groups that might be, by name.

    Widths are those of the first producer of a group. They are read off its weight, for the units of a group that was
    pruned may be others than before: where one of two rows of channels is left, each channel is a unit of its own.
    Groups that share the weight share a width.
    """

    size: Totals
    widths: Mapping[str, Width]

    @classmethod
    def open(cls, model: Model, groups: Sequence[ChannelGroup]) -> Account:
        sizes, widths, seen = _sizes(model), {}, set()
        for group in groups:
            first = group.producers[0]
            if (first.tensor, first.dim) not in seen:
                seen.add((first.tensor, first.dim))
                widths[group.name] = Width(first.layer, first.tensor, first.dim, sizes[first.tensor][first.dim])
        return cls(totals(layers(model)), widths)

    def close(self, model: Model, outcome: Outcome) -> None:
        """Say what changed."""
        sizes = _sizes(model)
        rows = [(name, width.channels, width.now(sizes)) for name, width in self.widths.items()]
        narrower = [(name, width, left) for name, width, left in rows if left < width]
        for name, _, _ in narrower:
            outcome.change(self.widths[name].layer)
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


def _sizes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the stored tensors by name."""
    return {str(node.target): spec(node).shape for node in model.module.graph.nodes if node.op == "get_attr"}
