"""Which option of each layer, for the outputs to move least under one budget for the model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from lvc.passes.low_rank.options import Option

L = TypeVar("L", bound=Hashable)


def lower_hull(options: Sequence[Option], today: float) -> list[Option]:
    """The options that a price can buy, dearest first: those on the lower convex hull of cost and error, which begins
    at a cost of ``today`` with no error."""
    hull: list[tuple[float, float, Option | None]] = [(today, 0.0, None)]
    for option in sorted(options, key=lambda option: (-option.cost, option.error)):
        if option.cost >= today:
            continue
        while len(hull) > 1 and _slope(hull[-1], option) <= _slope(hull[-2], hull[-1][2]):
            hull.pop()
        if len(hull) == 1 or option.cost < hull[-1][0]:
            hull.append((option.cost, option.error, option))
    return [option for _, _, option in hull if option is not None]


def _slope(start: tuple[float, float, Option | None], end: Option | None) -> float:
    """The error that a unit of cost saves with it."""
    assert end is not None
    return (end.error - start[1]) / max(start[0] - end.cost, 1e-30)


def choose(options: Mapping[L, Sequence[Option]], today: Mapping[L, float], allowed: float) -> dict[L, Option]:
    """Return an option for each layer that shall be factored: errors being taken to add up, the least for which the
    costs of all layers together are allowed; the cheapest of each where none are.

    Layers come down their hulls step by step, the one first that saves most for its error. What the last step saves
    too much goes back to layers whose own steps still fit.
    """
    hulls = {layer: lower_hull(found, today[layer]) for layer, found in options.items()}
    steps = []
    for layer, hull in hulls.items():
        before: tuple[float, float, Option | None] = (today[layer], 0.0, None)
        for place, option in enumerate(hull):
            steps.append((_slope(before, option), place, layer))
            before = (option.cost, option.error, option)
    taken: dict[L, int] = {}
    total = sum(today.values())
    for _, place, layer in sorted(steps, key=lambda step: step[:2]):
        if total <= allowed:
            break
        total -= (hulls[layer][place - 1].cost if place else today[layer]) - hulls[layer][place].cost
        taken[layer] = place
    for layer in sorted(taken, key=lambda layer: -_gain(hulls[layer], taken[layer])):
        place = taken[layer]
        before_cost = hulls[layer][place - 1].cost if place else today[layer]
        if total - hulls[layer][place].cost + before_cost <= allowed:
            total += before_cost - hulls[layer][place].cost
            taken[layer] = place - 1
    return {layer: hulls[layer][place] for layer, place in taken.items() if place >= 0}


def _gain(hull: Sequence[Option], place: int) -> float:
    return hull[place].error - (hull[place - 1].error if place else 0.0)
