"""The range that keeps most of what the distribution of the values says when it is quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.histogram import Histogram
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import HistogramEstimator, Range

_CANDIDATES = 96
_BINS_A_STEP = 4


@dataclass(frozen=True, kw_only=True)
class Entropy(HistogramEstimator):
    """The range that makes the Kullback-Leibler divergence least, from the values to the quantised ones.

    Values beyond the range count at its end. Quantised, the values of one step are taken as spread evenly over those
    bins of the histogram which held any. Zeros say nothing, for zero is always exact; and a range with fewer than four
    bins a step looks better than it is, for the histogram does not show what its rounding does.

    Source: Migacz 2017, "8-bit inference with TensorRT".
    """

    name: ClassVar[str] = "entropy"

    def choose(self, seen: Histogram, scheme: QuantisationScheme) -> Range:
        furthest = max(-seen.low, seen.high)
        least, most = scheme.bounds(seen.low < 0)
        narrowest = min(1.0, _BINS_A_STEP * (most - least) * seen.width / (seen.high - min(seen.low, 0)))
        ends = [
            (max(seen.low, -furthest * share), min(seen.high, furthest * share))
            for share in torch.linspace(narrowest, 1, _CANDIDATES).tolist()
        ]
        return min(ends, key=lambda pair: _divergence(seen, scheme, *pair))


def _divergence(seen: Histogram, scheme: QuantisationScheme, low: float, high: float) -> float:
    values, counts = seen.points()
    values, counts = values[values.abs() > seen.width], counts[values.abs() > seen.width]
    inside = (values >= low) & (values <= high)
    if not inside.any():
        return float("inf")
    reference = counts[inside].clone()
    reference[0] += counts[values < low].sum()
    reference[-1] += counts[values > high].sum()
    parameters = scheme.parameters(torch.tensor(low), torch.tensor(high))
    points = (values[inside] / float(parameters.scale)).round().long()
    _, step = torch.unique(points, return_inverse=True)
    total = torch.zeros(int(step.max()) + 1, dtype=torch.float64)
    spread = total.index_add(0, step, counts[inside]) / total.index_add(0, step, torch.ones_like(reference))
    p, q = reference / reference.sum(), spread[step] / spread[step].sum()
    return float((p * (p / q).log()).sum())
