"""How a model comes to a share of its latency: as foretold by a cost, then measured, then more or less is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lvc.compiler.pipeline.workspace import Race

C = TypeVar("C")

NEAR = 0.04
"""A latency is near enough that is at most so much below the budget, relative to it."""

_TRIES = 8


@dataclass(frozen=True)
class Timed(Generic[C]):
    """A choice, the share of today's latency that was foretold for it, and what was measured."""

    choice: C
    foretold: float
    race: Race


def until_fast(
    share: float,
    ask: Callable[[float], C],
    foretell: Callable[[C], float],
    measure: Callable[[C], Race],
    least: float,
) -> Timed[C]:
    """Return the choice whose measured latency is nearest to a share of today's, of those that were tried.

    ``ask`` gives a choice for which at most a share of today's latency is foretold, ``least`` or more. What is measured
    differs from that: each guess lies on the line through the last two measurements, or halves what is left between
    the nearest on both sides. It is aimed a little below the budget; a choice above it counts where none is as near.
    """
    goal = share * (1 - NEAR / 2)
    measured: dict[float, Timed[C]] = {}
    last, before = (1.0, 1.0), (0.0, 0.0)
    low, high, guess = least, 1.0, goal
    for _ in range(_TRIES):
        asked = max(guess, least)
        choice = ask(asked)
        foretold = foretell(choice)
        if foretold not in measured:
            measured[foretold] = Timed(choice, foretold, measure(choice))
        found = measured[foretold].race.share
        if share * (1 - NEAR) <= found <= share or (asked <= least and found > share):
            break
        low, high = (asked, high) if found < goal else (low, asked)
        if foretold != last[0]:
            before, last = last, (foretold, found)
        guess = _on_line(before, last, goal)
        if not (low < guess or low == least) or guess >= high:
            guess = (low + high) / 2
    return min(measured.values(), key=lambda one: _miss(one, share))


def _on_line(first: tuple[float, float], second: tuple[float, float], wanted: float) -> float:
    """Where a line through two points of what was foretold and measured comes to what is wanted."""
    rise = second[1] - first[1]
    return second[0] + (wanted - second[1]) * (second[0] - first[0]) / rise if rise else first[0]


def _miss(found: Timed[C], share: float) -> tuple[bool, float]:
    """How far a latency is from the budget; one clearly above it is worse than any below."""
    return found.race.share > share * (1 + NEAR), abs(found.race.share - share)
