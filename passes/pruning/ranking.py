"""In which order units go: one queue for the whole model, from which any number can be taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lvc.passes.analysis.channel_groups import ChannelGroup, Removal

Ranking = Literal["layer", "global", "isomorphic", "sensitivity"]


@dataclass(frozen=True)
class Queue:
    """Which group gives up its next unit, at each step; and the order in which each group gives up its own."""

    steps: tuple[str, ...]
    orders: Mapping[str, tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.steps)

    def removal(self, count: int, multiples: Mapping[str, int]) -> Removal:
        """Return what is gone after so many steps, each group's width rounded to a multiple of its own."""
        taken: dict[str, int] = defaultdict(int)
        for name in self.steps[:count]:
            taken[name] += 1
        rounded = {
            name: len(self.orders[name])
            - _round(len(self.orders[name]) - gone, len(self.orders[name]), multiples[name])
            for name, gone in taken.items()
        }
        return {name: sorted(self.orders[name][:gone]) for name, gone in rounded.items() if gone}


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
) -> Queue:
    """Line up the units of all groups by price; ``least`` is the width that each group keeps in any case.

    ``prices`` has for each group what its 1st, 2nd, ... removal costs, never falling, ``f64[size]``.
    """
    orders = {group.name: tuple(scores[group.name].argsort(stable=True).tolist()) for group in groups}
    offers = [
        (float(price), place, group.name)
        for group in groups
        for place, price in enumerate(prices[group.name][: max(0, group.size - least[group.name])])
    ]
    return Queue(tuple(name for _, _, name in sorted(offers)), orders)


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
