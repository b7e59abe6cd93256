"""How small the model shall become: a share of today's channels, MACs, parameters, bytes or latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels, Removal
from lvc.passes.pruning.ranking import Queue

Shapes = Mapping[str, tuple[int, ...]]
Measure = Callable[[Removal], float]
"""What a model would measure after a removal."""

SHARES = {
    "macs": "the share of today's multiply-accumulates to keep",
    "params": "the share of today's parameters to keep",
    "bytes": "the share of today's bytes of weights to keep",
    "latency": "the share of today's latency to keep, measured on the target",
}
"""The options of passes that say how much of a model stays, and what each means."""


@dataclass(frozen=True)
class Cost:
    """What counts: its name in sentences, and its value for each removal from a model."""

    name: str
    measure: Measure

    def of_a_unit(self, group: ChannelGroup) -> float:
        """Return what removing one unit saves today; never less than a trace, for something else may be saved."""
        return max(1e-12, self.measure({}) - self.measure({group.name: (0,)}))


def cost_of(kind: str, model: Model, channels: Channels, groups: Sequence[ChannelGroup]) -> Cost:
    """Return the cost that an option of `prune-channels` names: exact, from shapes alone.

    ``ratio`` counts the units of ``groups``, those that may be pruned; the others count the whole model.
    """
    if kind == "ratio":
        units = sum(group.size for group in groups)
        return Cost("channels", lambda removal: units - sum(map(len, removal.values())))
    name, measure = _COSTS[kind]
    return Cost(name, lambda removal: measure(model, channels.shapes(removal)))


def _macs(model: Model, shapes: Shapes) -> float:
    return sum(macs(node, shapes) for node in calls(model.module.graph))


def _parameters(model: Model, shapes: Shapes) -> float:
    return sum(math.prod(shapes[node.name]) for node in model.module.graph.nodes if node.op == "get_attr")


def _bytes(model: Model, shapes: Shapes) -> float:
    stored = (node for node in model.module.graph.nodes if node.op == "get_attr")
    return sum(math.prod(shapes[node.name]) * spec(node).dtype.itemsize for node in stored)


_COSTS: dict[str, tuple[str, Callable[[Model, Shapes], float]]] = {
    "macs": ("MACs", _macs),
    "params": ("parameters", _parameters),
    "bytes": ("bytes", _bytes),
}


def check_reachable(queue: Queue, cost: Cost, allowed: float, multiples: Mapping[str, int], today: float) -> None:
    """Raise `UsageError` if a whole queue does not bring a cost down to what is allowed; ``today`` is all of it."""
    least = cost.measure(queue.removal(len(queue), multiples))
    if least > allowed:
        raise UsageError(
            f"the target cannot be reached: {cost.name} fall to {least / today:.3f} of today's at most",
            why="every group that may shrink is then at the least width that it may have",
            help="ask for less, lower keep=, or skip fewer groups",
        )


def take(queue: Queue, cost: Cost, allowed: float, multiples: Mapping[str, int]) -> Removal:
    """Take the fewest steps of a queue that bring a cost down to what is allowed; all of it if none do."""
    low, high = 0, len(queue)
    while low < high:
        middle = (low + high) // 2
        if cost.measure(queue.removal(middle, multiples)) <= allowed:
            high = middle
        else:
            low = middle + 1
    return queue.removal(low, multiples)
