"""The range that holds all but a small share of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import HistogramEstimator, Range


@dataclass(frozen=True, kw_only=True)
class Percentile(HistogramEstimator):
    """The range that leaves out the same small share of the values at either end."""

    name: ClassVar[str] = "percentile"

    p: float = option(99.99, "percent of the values at or below the upper end, above 50 and at most 100")

    def __post_init__(self) -> None:
        if not 50 < self.p <= 100:
            raise UsageError(f"p must be above 50 and at most 100, not {self.p}")

    def choose(self, seen: Histogram, scheme: QuantisationScheme) -> Range:
        return seen.quantile(1 - self.p / 100), seen.quantile(self.p / 100)
