"""Which groups may be pruned, and in what portions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Outcome
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels
from lvc.passes.analysis.patterns import choose_named


def choose(channels: Channels, skip: Sequence[str], model: Model, outcome: Outcome) -> tuple[ChannelGroup, ...]:
    """Return the groups that may be pruned; the outcome says of all others why not.

    `UsageError` for a pattern that matches no group.
    """
    skipped = choose_named({group: (group.name,) for group in channels}, skip)
    nodes = {node.name: node for node in model.module.graph.nodes}
    free = []
    for group in channels:
        reason = group.fixed or (f"skip={skipped[group]} names it" if group in skipped else None)
        if reason is None:
            free.append(group)
        else:
            outcome.skip(nodes[group.producers[0].layer], reason)
    return tuple(free)


def find_multiple(group: ChannelGroup, channels: int) -> int:
    """Return of how many units a width must be a multiple, for its channels to be a multiple of ``channels``."""
    first = group.producers[0]
    of_a_unit = max(1, int((first.units >= 0).sum()) // group.size)
    return channels // math.gcd(channels, of_a_unit)
