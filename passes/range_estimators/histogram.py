"""The range that is left when values are cut off at the sparser end for as long as the error falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import HistogramEstimator, Range

_STEPS = 256


@dataclass(frozen=True, kw_only=True)
class HistogramSearch(HistogramEstimator):
    """Narrow the range step by step, each time at the end that has fewer values, and keep the best on the way.

    Source: the search of PyTorch's HistogramObserver, which stops at the first rise of the error; this one looks on.
    """

    name: ClassVar[str] = "histogram"

    def choose(self, seen: Histogram, scheme: QuantisationScheme) -> Range:
        lows, highs = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*_narrowing(seen), strict=True))
        place = int(seen.error(scheme, lows, highs).argmin())
        return float(lows[place]), float(highs[place])


def _narrowing(seen: Histogram) -> list[Range]:
    """Return the ranges on the way from all values to a tenth of the width."""
    step = (seen.high - seen.low) / _STEPS
    values, counts = seen.points()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0)])

    def held(low: float, high: float) -> float:
        ends = torch.searchsorted(values, torch.tensor([low, high], dtype=torch.float64))
        return float(below[ends[1]] - below[ends[0]])

    low, high = seen.low, seen.high
    ranges = [(low, high)]
    for _ in range(_STEPS - _STEPS // 10):
        lost_below = held(low, low + step) if low + step <= 0 else float("inf")
        lost_above = held(high - step, high) if high - step >= 0 else float("inf")
        if lost_below == lost_above == float("inf"):
            break
        low, high = (low + step, high) if lost_below <= lost_above else (low, high - step)
        ranges.append((low, high))
    return ranges
