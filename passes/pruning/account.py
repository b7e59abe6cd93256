"""What pruning did to a model: sizes and widths before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lvc.compiler.inspection import Totals, layers, totals
from lvc.compiler.model import Model
from lvc.compiler.passes import Outcome, Table
from lvc.compiler.text import duration, si
from lvc.compiler.workspace import Stopwatch
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels

MISSED = 0.05
"""How far from its target a latency may be, relative to it, before the report calls it missed."""


@dataclass(frozen=True)
class Account:
    """Sizes of a model before it was pruned, and the widths of the groups that might be."""

    size: Totals
    widths: Mapping[str, int]
    nodes: Mapping[str, str]

    @classmethod
    def open(cls, model: Model, groups: Sequence[ChannelGroup]) -> Account:
        nodes = {group.name: group.producers[0].layer for group in groups}
        return cls(totals(layers(model)), {group.name: group.size for group in groups}, nodes)

    def close(self, channels: Channels, model: Model, outcome: Outcome) -> None:
        """Say what changed."""
        now = {group.name: group.size for group in channels}
        rows = [(name, width, now.get(name, 1)) for name, width in self.widths.items()]
        narrower = [(name, width, left) for name, width, left in rows if left < width]
        for name, _, _ in narrower:
            outcome.change(self.nodes[name])
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
