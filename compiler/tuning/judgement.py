"""When one kernel is surely faster than another, on a machine that other programs use.

Contestants run in turns, so that what slows a round slows all, and their rounds are taken in blocks: the least time of
a block is what the kernel takes, whatever else runs there. A contestant is judged by the median over the blocks of that
time as a share of another's, with the error that the spread of the shares gives it. Two builds of the same kernel run
beside the others: what they differ by is noise, and what wins by no more has not won.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 8
FEWEST_ROUNDS, MOST_ROUNDS = 5 * BLOCK, 15 * BLOCK
MARGIN = 0.01
"""A gain below this is none."""
ERRORS = 3.0
"""Standard errors that a verdict keeps away from its limit."""
LEAST_ERROR = 1e-3
"""Of a share, since a few blocks may agree by chance."""


@dataclass(frozen=True)
class Share:
    """The time of one as a share of the time of another, and the standard error of that."""

    value: float
    error: float

    @classmethod
    def of(cls, ours: np.ndarray, theirs: np.ndarray) -> Share:
        """From the blocks in which both ran, by quartiles, as if shares were normal but for outliers."""
        count = min(len(ours), len(theirs)) // BLOCK
        if not count:
            return cls(1.0, float("inf"))
        mine, other = (times[: count * BLOCK].reshape(count, BLOCK).min(axis=1) for times in (ours, theirs))
        low, middle, high = np.percentile(mine / other, (25, 50, 75))
        return cls(float(middle), max(LEAST_ERROR, float(1.25 * (high - low) / 1.35 / np.sqrt(count))))

    @property
    def least(self) -> float:
        return self.value - ERRORS * self.error

    @property
    def most(self) -> float:
        return self.value + ERRORS * self.error


@dataclass(frozen=True)
class Judge:
    """Decides when a race has been run long enough; ``limit`` is how many seconds it may take in all."""

    fewest: int = FEWEST_ROUNDS
    most: int = MOST_ROUNDS
    limit: float = 4.0

    def is_done(self, rounds: Sequence[np.ndarray]) -> bool:
        """Whether every contestant has surely won or surely not: the first is whom they run against."""
        first, *others = rounds
        if len(first) < self.fewest or len(first) % BLOCK:
            return False
        if len(first) >= self.most or sum(float(times.sum()) for times in rounds) > self.limit:
            return True
        return all(share.most < 1 - MARGIN or share.least > 1 - MARGIN for share in _shares(first, others))

    def is_hopeless(self, ours: np.ndarray, theirs: np.ndarray) -> bool:
        """Whether there is no use in running on."""
        return len(ours) >= min(2 * BLOCK, self.fewest) and Share.of(ours, theirs).least > 1 + 5 * MARGIN


def _shares(first: np.ndarray, others: Sequence[np.ndarray]) -> list[Share]:
    return [Share.of(other, first) for other in others]


def noise(rule: np.ndarray, control: np.ndarray) -> float:
    """What two builds of the same kernel surely differ by, as a share."""
    share = Share.of(control, rule)
    return max(0.0, abs(share.value - 1) + share.error)


def is_faster(ours: np.ndarray, theirs: np.ndarray, noise: float) -> bool:
    """Whether the first surely takes less time, by more than noise; their best times must say so too."""
    limit = 1 - max(MARGIN, noise)
    return Share.of(ours, theirs).most < limit and float(ours.min() / theirs.min()) < limit


def best(rounds: Mapping[str, np.ndarray], against: np.ndarray) -> str:
    """The name of the contestant with the smallest share."""
    return min(rounds, key=lambda name: Share.of(rounds[name], against).value)
