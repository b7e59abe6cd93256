"""How values are distributed, learnt from any number of batches in a fixed amount of memory."""

from __future__ import annotations

import math

import torch

from lvc.compiler.pipeline.ranks import Ranks
from lvc.compiler.running.compute import round_per_channel
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme

BINS = 8192
_MOST_SAMPLES = 1 << 14


def _stride(count: int) -> int:
    """How far apart the values are that are counted of so many."""
    stride = -(-count // _MOST_SAMPLES)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


class Histogram:
    """Counts of values in equal bins from ``-reach`` to ``reach``, a power of two that doubles when it is exceeded.

    Then each pair of bins becomes one, so no count is ever split. ``low`` and ``high`` are the exact extremes; of a
    large batch every n-th value is counted, where n has no divisor in common with their number: each column and each
    row of images then comes in its turn.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.reach = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, values: torch.Tensor) -> None:
        low, high = (float(extreme) for extreme in values.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover(max(-low, high))
        if self.reach:
            flat = values.detach().flatten().float()
            sampled = flat[:: _stride(flat.numel())]
            bins = (sampled / self.reach).add_(1).mul_(BINS / 2).clamp_(max=BINS - 1)
            self.counts += torch.bincount(bins.long(), minlength=BINS)

    def join(self, ranks: Ranks) -> None:
        """Count what all processes counted."""
        ends = ranks.gather(torch.tensor([[self.low, self.high, self.reach]], dtype=torch.float64))
        self.low, self.high = float(ends[:, 0].min()), float(ends[:, 1].max())
        self._cover(float(ends[:, 2].max()))
        ranks.sum(self.counts)

    @property
    def width(self) -> float:
        return 2 * self.reach / BINS

    @property
    def centres(self) -> torch.Tensor:
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * self.width - self.reach

    def points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the centres of the bins that hold values, within the extremes, and their counts."""
        held = self.counts > 0
        return self.centres[held].clamp(self.low, self.high), self.counts[held]

    def quantile(self, share: float) -> float:
        """Return a value that about this share of the values does not exceed, to the width of a bin."""
        below = self.counts.cumsum(0)
        place = int(torch.searchsorted(below, share * float(below[-1])).clamp(max=BINS - 1))
        return min(max(float(self.centres[place]) + self.width / 2, self.low), self.high)

    def error(self, scheme: QuantisationScheme, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of quantising each candidate range, ``f64[candidates]``."""
        values, counts = self.points()
        parameters = scheme.parameters(low, high)
        candidates = values.float().expand(len(low), -1)
        rounded = round_per_channel(candidates, parameters.scale, parameters.zero, 0, parameters.low, parameters.high)
        return (rounded.double().sub_(values).square_() @ counts) / counts.sum()

    def _cover(self, magnitude: float) -> None:
        if magnitude <= self.reach:
            return
        reach = 2.0 ** max(-126, math.ceil(math.log2(magnitude)))
        while self.reach and self.reach < reach:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts.zero_()
            self.counts[BINS // 4 : BINS - BINS // 4] = pairs
            self.reach *= 2
        self.reach = max(self.reach, reach)
