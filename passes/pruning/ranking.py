"""In which order the units of each group go, and at which price: from that as many can be taken as a budget wants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup, Removal
from lvc.passes.budget.search import Ladder, descend
from lvc.passes.pruning.remaining import Remaining

Ranking = Literal["layer", "global", "isomorphic", "sensitivity"]


@dataclass(frozen=True)
class Queue:
    """The order in which each group gives up its units, a ladder of their prices down to its least width, and of what
    its width is a multiple."""

    orders: Mapping[str, tuple[int, ...]]
    ladders: Mapping[str, Ladder]
    multiples: Mapping[str, int]

    @property
    def narrowest(self) -> Removal:
        """What is gone when every group is at its least width."""
        return self.removal({name: len(ladder.prices) for name, ladder in self.ladders.items()})

    def take(self, cost: Remaining, allowed: float) -> Removal:
        """Take units until no more of a cost is left than is allowed; all of them if there never is."""
        return self.removal(descend(self.ladders, lambda levels: cost.measure(self.removal(levels)), allowed))

    def removal(self, taken: Mapping[str, int]) -> Removal:
        """Return what is gone when each group has given up so many units, its width rounded to a multiple."""
        sizes = {name: len(self.orders[name]) for name in taken}
        gone = {name: size - _round(size - taken[name], size, self.multiples[name]) for name, size in sizes.items()}
        return {name: sorted(self.orders[name][:count]) for name, count in gone.items() if count}


def _round(width: int, today: int, multiple: int) -> int:
    """Return the multiple nearest to a width, at least one of it; a width that nothing is gone from stays."""
    if multiple == 1 or width == today:
        return width
    return min(today, max(multiple, (width + multiple // 2) // multiple * multiple))


def make_queue(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, torch.Tensor],
    prices: Mapping[str, torch.Tensor],
    least: Mapping[str, int],
    multiples: Mapping[str, int],
) -> Queue:
    """Line up the units of all groups by price; ``least`` is the width that each group keeps in any case.

    ``prices`` has for each group what its 1st, 2nd, ... removal costs, never falling, ``f64[size]``.
    """
    orders = {group.name: tuple(scores[group.name].argsort(stable=True).tolist()) for group in groups}
    counts = {group.name: max(0, group.size - least[group.name]) for group in groups}
    ladders = {name: Ladder.of_prices(prices[name][: counts[name]].tolist()) for name in sorted(counts)}
    return Queue(orders, ladders, multiples)


def layer_prices(scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every group gives up the same share of its units."""
    return {name: torch.arange(1, len(found) + 1) / len(found) for name, found in scores.items()}


def global_prices(scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The units of least score go, wherever they are."""
    return {name: found.sort().values for name, found in scores.items()}


def isomorphic_prices(groups: Sequence[ChannelGroup], scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Groups of like structure compete with one another, and each such class gives up the same share of its units.

    Source: Fang et al., "Isomorphic pruning for vision models", 2024. Two groups are alike if their tensors have the
    same roles and dimensions, in number and order.
    """
    classes: dict[object, list[str]] = defaultdict(list)
    for group in groups:
        shape = tuple((member.role, member.dim, len(member.units) // group.size) for member in group.members)
        classes[shape].append(group.name)
    prices = {}
    for names in classes.values():
        together = torch.cat([scores[name] for name in names]).sort().values
        for name in names:
            ranks = torch.searchsorted(together, scores[name].sort().values, right=True)
            prices[name] = ranks / len(together)
    return prices
