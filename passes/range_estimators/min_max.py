"""The range from the least to the greatest value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.pipeline.ranks import Ranks
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import Range, RangeEstimator, Watch


@dataclass(frozen=True, kw_only=True)
class MinMax(RangeEstimator):
    """From the least to the greatest value: nothing is cut off, and one outlier coarsens all steps."""

    name: ClassVar[str] = "min-max"

    def watch(self, scheme: QuantisationScheme) -> Watch:
        return _Extremes()


class _Extremes:
    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def see(self, values: torch.Tensor) -> None:
        low, high = values.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def join(self, ranks: Ranks) -> None:
        ends = ranks.gather(torch.tensor([[self.low, self.high]], dtype=torch.float64))
        self.low, self.high = float(ends[:, 0].min()), float(ends[:, 1].max())

    def range(self) -> Range:
        return self.low, self.high
