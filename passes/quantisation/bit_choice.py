"""How many bits each layer gets: a path from all in floating point to all in the fewest bits, the cheapest steps first.

What several layers cost together is taken to be the sum of what each costs alone. Every step of the path saves the most
bytes for what it costs, so a point of the path is, up to one layer, the best choice of its size.

Source: Dong et al. 2020, "HAWQ-V2", section 3.3 (a sum of sensitivities under a bound on size); Shoham and Gersho 1988,
"Efficient bit allocation for an arbitrary set of quantizers" (steps along the convex hull).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FLOAT = 32
"""Stands for a layer that stays in floating point."""

Assignment = dict[str, int]


@dataclass(frozen=True)
class Choice:
    """A layer with so many bits: its bytes, and what it costs."""

    bits: int
    bytes: int
    cost: float


Choices = Mapping[str, Sequence[Choice]]
"""What each layer can have, by name."""


@dataclass(frozen=True)
class Point:
    """A choice for every layer: the bytes of all, and the sum of the costs."""

    bits: Assignment
    bytes: int
    cost: float


def path(layers: Choices) -> list[Point]:
    """Return the points from all layers at their largest choice to all at their smallest, in order."""
    hulls = {name: _hull(choices) for name, choices in layers.items()}
    at = dict.fromkeys(hulls, 0)
    points = [_point(hulls, at)]
    while open_ := [name for name, hull in hulls.items() if at[name] + 1 < len(hull)]:
        cheapest = min(open_, key=lambda name: _slope(*hulls[name][at[name] : at[name] + 2]))
        at[cheapest] += 1
        points.append(_point(hulls, at))
    return points


def filled(layers: Choices, point: Point, most: int) -> Point:
    """Use what is left of so many bytes: give layers larger choices that fit, those that save the most cost first."""
    chosen = {name: next(c for c in layers[name] if c.bits == bits) for name, bits in point.bits.items()}
    room = most - point.bytes
    while better := [
        (old.cost - new.cost, name, new)
        for name, old in chosen.items()
        for new in layers[name]
        if new.cost < old.cost and new.bytes - old.bytes <= room
    ]:
        _, name, new = max(better, key=lambda item: item[:2])
        room -= new.bytes - chosen[name].bytes
        chosen[name] = new
    return _sum(chosen)


def _hull(choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices that are worth it, the largest first: each step costs more a byte than the one before."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (-choice.bytes, choice.cost)):
        if hull and choice.bytes == hull[-1].bytes:
            continue
        while hull and choice.cost <= hull[-1].cost:
            hull.pop()
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(larger: Choice, smaller: Choice) -> float:
    return (smaller.cost - larger.cost) / (larger.bytes - smaller.bytes)


def _point(hulls: Mapping[str, Sequence[Choice]], at: Mapping[str, int]) -> Point:
    return _sum({name: hull[at[name]] for name, hull in hulls.items()})


def _sum(chosen: Mapping[str, Choice]) -> Point:
    return Point(
        {name: choice.bits for name, choice in chosen.items()},
        sum(choice.bytes for choice in chosen.values()),
        sum(choice.cost for choice in chosen.values()),
    )
