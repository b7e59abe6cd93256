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
    too much goes to layers that an option of less error still fits, those first that gain most by it.
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
    chosen = {layer: hulls[layer][place] for layer, place in taken.items()}
    for layer in sorted(chosen, key=lambda layer: -chosen[layer].error):
        room = allowed - total + chosen[layer].cost
        better = [one for one in options[layer] if one.cost <= room and one.error < chosen[layer].error]
        if today[layer] <= room:
            total += today[layer] - chosen.pop(layer).cost
        elif better:
            nearest = min(better, key=lambda one: one.error)
            total += nearest.cost - chosen[layer].cost
            chosen[layer] = nearest
    return chosen
