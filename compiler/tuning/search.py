"""The search over the ways to make one kernel: what a cost model likes first, then what is near the best so far."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from lvc.compiler.tuning.database import Place, Record
from lvc.compiler.tuning.kernels import Choice, Kernel

HOPE = 0.3
"""The part of what lies between a kernel and its roof that tuning may win, at first."""
FADING = 0.5
"""What is left of it after a batch of trials that brought nothing."""


@dataclass
class Search:
    """The state of one kernel's search. ``tried`` are all choices that need no trial any more, ``fruitless`` counts the
    batches that brought nothing since the last gain, ``given_up`` says why there will be no more, and ``running`` are
    choices that are being tried."""

    kernel: Kernel
    place: Place
    record: Record | None = None
    tried: set[Choice] = field(default_factory=set)
    fruitless: int = 0
    given_up: str = ""
    running: set[Choice] = field(default_factory=set)
    ranked: list[Choice] | None = None

    @property
    def incumbent(self) -> Choice:
        """The best choice so far."""
        return self.record.choice if self.record else self.kernel.rule

    @property
    def seconds(self) -> float:
        """What one run takes with it."""
        return self.kernel.seconds * (self.record.share if self.record else 1.0)

    @property
    def left(self) -> list[Choice]:
        """The choices that nobody has tried, what the cost model likes best first."""
        if self.ranked is None:  # ranking takes a moment, so that only kernels that are searched are ranked
            self.ranked = [choice for choice in self.kernel.choices() if choice != self.kernel.rule]
        return [choice for choice in self.ranked if choice not in self.tried and choice not in self.running]

    @property
    def hope(self) -> float:
        """Seconds of the whole model that may still be won here."""
        if self.given_up or (self.ranked is not None and not self.left):
            return 0.0
        gap = max(0.0, self.seconds - self.kernel.roof)
        return float(self.kernel.count * gap * HOPE * FADING**self.fruitless)

    def next(self, count: int) -> list[Choice]:
        """The choices to try next: half of them near the incumbent once there is one beside the rule's, or once the
        model's favourites have brought nothing; the rest in the order of the cost model."""
        left = self.left
        near = list(neighbours(self.incumbent, left))[: count // 2] if self.record or self.fruitless else []
        return list(dict.fromkeys([*near, *left]))[:count]


def neighbours(choice: Choice, others: Collection[Choice]) -> Iterator[Choice]:
    """Those that differ from a choice by one integer, the least differences first."""
    distances = [(distance, other) for other in others if (distance := _distance(choice, other)) is not None]
    yield from (other for _, other in sorted(distances))


def _distance(one: Choice, other: Choice) -> float | None:
    """How far apart two choices are that differ by one integer, relative to it; None if they differ by more."""
    ours, theirs = json.loads(one), json.loads(other)
    if ours.keys() != theirs.keys():
        return None
    differing = [name for name in ours if ours[name] != theirs[name]]
    if len(differing) != 1 or isinstance(ours[differing[0]], str):
        return None
    a, b = ours[differing[0]], theirs[differing[0]]
    return float(abs(a - b) / max(abs(a), abs(b), 1))


def most_hopeful(searches: Sequence[Search], least: float) -> Search | None:
    """The search with most to win; None if none has so much. Beside what is being tried, the rest promises less."""

    def hope(search: Search) -> float:
        return search.hope * (FADING if search.running else 1.0)

    best = max(searches, key=hope, default=None)
    return best if best and hope(best) > least else None
