"""Which groups may be pruned, and in what portions."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase

from lvc.compiler.errors import UsageError
from lvc.compiler.model import Model
from lvc.compiler.passes import Outcome
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels


def choose(channels: Channels, skip: Sequence[str], model: Model, outcome: Outcome) -> tuple[ChannelGroup, ...]:
    """Return the groups that may be pruned; the outcome says of all others why not.

    `UsageError` for a pattern that matches no group.
    """
    names = [group.name for group in channels]
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=3)
            raise UsageError(
                f"skip={pattern} matches no group of channels",
                why=f"groups are named after the first layer that makes them, for example {', '.join(names[:3])}",
                help=f"did you mean {' or '.join(close)}?" if close else "'lvc inspect MODEL --groups' lists them",
            )
    nodes = {node.name: node for node in model.module.graph.nodes}
    free = []
    for group in channels:
        reason = group.fixed or next((f"skip={p} names it" for p in skip if fnmatchcase(group.name, p)), None)
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
