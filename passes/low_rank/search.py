"""Which option of each layer, for the outputs to move least under one budget for the model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, TypeVar

from lvc.passes.budget.search import Ladder, Levels, descend


class Priced(Protocol):
    """What has a cost, and an error that it makes."""

    @property
    def cost(self) -> float: ...

    @property
    def error(self) -> float: ...


L = TypeVar("L", bound=Hashable)
P = TypeVar("P", bound=Priced)


def useful(options: Sequence[P], today: float) -> list[P]:
    """The options that save something and that no other beats in cost and error, dearest first."""
    kept: list[P] = []
    for option in sorted(options, key=lambda option: (option.cost, option.error)):
        if option.cost < today and (not kept or option.error < kept[-1].error):
            kept.append(option)
    return kept[::-1]


def choose(options: Mapping[L, Sequence[P]], today: Mapping[L, float], allowed: float) -> dict[L, P]:
    """Return an option for each layer that shall be factored: errors being taken to add up, the least for which the
    costs of all layers together are allowed; the cheapest of each where none are."""
    levels = {layer: useful(found, today[layer]) for layer, found in options.items()}
    ladders = {
        layer: Ladder.of_points([(today[layer] - one.cost, one.error) for one in found])
        for layer, found in levels.items()
    }
    total = sum(today.values())

    def measure(taken: Levels[L]) -> float:
        return total - sum(today[layer] - levels[layer][level - 1].cost for layer, level in taken.items() if level)

    return {layer: levels[layer][level - 1] for layer, level in descend(ladders, measure, allowed).items()}
