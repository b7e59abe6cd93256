"""One search for all budgets: what costs least error for what it saves goes first, and what goes too far comes back.

Each layer, group of channels or whatever gets smaller has a ladder of levels; errors are taken to add up.

Source: Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988 (steps along hulls).
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
Levels = dict[K, int]
"""The level that each has come down to; what is not there is as it was."""

Point = tuple[float, float]
"""What a level saves of a cost, and the error that it makes."""


@dataclass(frozen=True)
class Ladder:
    """The levels to which something may come down, counted from 1: each is smaller than those before it, and worse.

    ``prices`` has for each level the error that it adds to the level before, for each unit of cost that it saves.
    ``stops`` are the levels that a price can buy, and that price: rising, and the last level is the last stop.
    """

    prices: Sequence[float]
    stops: Sequence[tuple[float, int]]

    @classmethod
    def of_prices(cls, prices: Sequence[float]) -> Ladder:
        """Levels whose prices never fall."""
        return cls(prices, [(price, level) for level, price in enumerate(prices, 1)])

    @classmethod
    def of_points(cls, points: Sequence[Point]) -> Ladder:
        """Levels of which each saves more than those before it, for more error."""
        hull = lower_hull(points)
        path = [(0.0, 0.0), *(points[place] for place in hull)]
        prices = itertools.starmap(slope, itertools.pairwise(path))
        own = [slope(*pair) for pair in itertools.pairwise([(0.0, 0.0), *points])]
        return cls(own, [(price, place + 1) for price, place in zip(prices, hull, strict=True)])


def lower_hull(points: Sequence[Point]) -> list[int]:
    """The places of those points that lie on the convex hull from below, which begins at nothing saved and no error.

    They are sorted by what they save, of which each has more than the one before it.
    """
    hull: list[tuple[Point, int]] = [((0.0, 0.0), -1)]
    for place, point in enumerate(points):
        while len(hull) > 1 and slope(hull[-2][0], hull[-1][0]) >= slope(hull[-1][0], point):
            hull.pop()
        hull.append((point, place))
    return [place for _, place in hull[1:]]


def slope(left: Point, right: Point) -> float:
    """The error for each unit of cost that is saved between two points."""
    return (right[1] - left[1]) / max(right[0] - left[0], 1e-30)


def descend(ladders: Mapping[K, Ladder], measure: Callable[[Levels[K]], float], allowed: float) -> Levels[K]:
    """Bring the cost that ``measure`` tells of levels down to what is allowed, for the least error; all the way down
    where nothing is allowed.

    The fewest stops are taken, the cheapest first. What the last of them saves too much goes back level by level to
    those where it buys most.
    """
    stops = [(price, place, key) for key, ladder in ladders.items() for place, (price, _) in enumerate(ladder.stops)]
    stops.sort(key=lambda stop: stop[:2])

    def after(count: int) -> Levels[K]:
        return {key: ladders[key].stops[place][1] for _, place, key in stops[:count]}

    count = bisect_left(range(len(stops)), True, key=lambda count: measure(after(count)) <= allowed)
    return _give_back(ladders, after(count), measure, allowed)


def _give_back(
    ladders: Mapping[K, Ladder], levels: Levels[K], measure: Callable[[Levels[K]], float], allowed: float
) -> Levels[K]:
    order = {key: place for place, key in enumerate(ladders)}

    def offer(key: K) -> tuple[float, int, K]:
        return -ladders[key].prices[levels[key] - 1], order[key], key

    offers = [offer(key) for key in levels]
    heapq.heapify(offers)
    while offers:
        *_, key = heapq.heappop(offers)
        if measure({**levels, key: levels[key] - 1}) > allowed:
            continue
        levels[key] -= 1
        if levels[key]:
            heapq.heappush(offers, offer(key))
    return {key: level for key, level in levels.items() if level}
