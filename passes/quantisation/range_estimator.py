"""What a range estimator is: it watches the values that arrive at a place, and chooses the range to quantise."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from lvc.compiler.pipeline.ranks import Ranks
from lvc.compiler.pipeline.registry import Classes, Component
from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme

Range = tuple[float, float]


class Watch(Protocol):
    """One place that is watched."""

    def see(self, values: torch.Tensor) -> None:
        """Take note of the finite values of one batch."""

    def range(self) -> Range:
        """Return the range to quantise, once all was seen."""


@runtime_checkable
class JoiningWatch(Watch, Protocol):
    """One that several processes can share, each of which sees some images."""

    def join(self, ranks: Ranks) -> None:
        """Take in what the watches of all processes saw, as if this one had seen it, in the order of ranks."""


@dataclass(frozen=True, kw_only=True)
class RangeEstimator(Component):
    """A way to choose ranges. Fields are options, as for passes. All see the data once, in memory that stays small."""

    @abstractmethod
    def watch(self, scheme: QuantisationScheme) -> Watch:
        """Begin to watch a place that will be quantised by a scheme."""


@dataclass(frozen=True, kw_only=True)
class HistogramEstimator(RangeEstimator):
    """A range estimator that decides by how the values are distributed."""

    def watch(self, scheme: QuantisationScheme) -> Watch:
        return _HistogramWatch(self, scheme)

    @abstractmethod
    def choose(self, seen: Histogram, scheme: QuantisationScheme) -> Range:
        """Return the range for values of a distribution; it need not hold all of them."""


class _HistogramWatch:
    def __init__(self, estimator: HistogramEstimator, scheme: QuantisationScheme) -> None:
        self.estimator = estimator
        self.scheme = scheme
        self.histogram = Histogram()

    def see(self, values: torch.Tensor) -> None:
        self.histogram.add(values)

    def join(self, ranks: Ranks) -> None:
        self.histogram.join(ranks)

    def range(self) -> Range:
        low, high = self.histogram.low, self.histogram.high
        return (low, high) if low == high else self.estimator.choose(self.histogram, self.scheme)


RANGE_ESTIMATORS: Classes[RangeEstimator] = Classes(
    "lvc.passes.quantisation.range_estimator:RangeEstimator", "lvc.passes.range_estimators", "range estimator"
)
