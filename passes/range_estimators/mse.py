"""The range that is quantised with the least error, by the mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import HistogramEstimator, Range

_SHARES = torch.linspace(0.05, 1.0, 77, dtype=torch.float64)
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(HistogramEstimator):
    """The range that makes the mean squared rounding error least: both ends together, then each for itself in turn.

    Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment"; here
    the error is counted on the histogram, so no distribution is assumed.
    """

    name: ClassVar[str] = "mse"

    def choose(self, seen: Histogram, scheme: QuantisationScheme) -> Range:
        low, high = torch.tensor(seen.low).double(), torch.tensor(seen.high).double()
        best = _best(seen, scheme, low * _SHARES, high * _SHARES)
        for _ in range(_ROUNDS):
            best = _best(seen, scheme, low * _SHARES, torch.full_like(_SHARES, best[1]))
            best = _best(seen, scheme, torch.full_like(_SHARES, best[0]), high * _SHARES)
        return best


def _best(seen: Histogram, scheme: QuantisationScheme, lows: torch.Tensor, highs: torch.Tensor) -> Range:
    place = int(seen.error(scheme, lows, highs).argmin())
    return float(lows[place]), float(highs[place])
