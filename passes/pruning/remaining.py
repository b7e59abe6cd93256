"""What removals leave of a cost, without removing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Race, Stopwatch
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels, Removal
from lvc.passes.analysis.channels.surgery import remove
from lvc.passes.budget.costs import COSTS, size_of

RATIO = "the share of all channels to remove"
"""A goal that only pruning has, and what it means."""


@dataclass(frozen=True)
class Remaining:
    """What counts: its name in sentences, and how much of it is left after each removal from a model."""

    name: str
    measure: Callable[[Removal], float]

    def of_a_unit(self, group: ChannelGroup) -> float:
        """Return what removing one unit saves today; never less than a trace, for something else may be saved."""
        return max(1e-12, self.measure({}) - self.measure({group.name: (0,)}))


def remaining(kind: str, model: Model, channels: Channels, groups: Sequence[ChannelGroup]) -> Remaining:
    """Return what an option of `prune-channels` counts: exact, from shapes alone.

    ``ratio`` counts the units of ``groups``, those that may be pruned; the others count the whole model.
    """
    if kind == "ratio":
        units = sum(group.size for group in groups)
        return Remaining("channels", lambda removal: units - sum(map(len, removal.values())))
    cost = COSTS[kind]
    return Remaining(cost.name, lambda removal: cost.of(size_of(model, channels.shapes(removal))))


def race_after(model: Model, channels: Channels, original: Model, stopwatch: Stopwatch) -> Callable[[Removal], Race]:
    """Return what measures a model after a removal in turns with the original."""

    def measure(removal: Removal) -> Race:
        narrower = model.copy(share_tensors=True)
        remove(narrower, channels, removal)
        return stopwatch.compare(narrower, original)

    return measure
