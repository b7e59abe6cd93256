"""A codebook that is learned: ``2^b`` clusters by k-means of a layer's weights, each row over its root mean square.

Weights of one cluster share one value. Zero is always an entry, since padding has it. Lloyd's algorithm on one line
keeps clusters in order, so that a sorted table and the middles between its entries are all it needs.

Source: Han et al. 2016, "Deep compression", section 3; Lloyd 1982, "Least squares quantization in PCM".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.passes.quantisation.weight_format import Codebook, WeightFormat

_MOST_WEIGHTS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class LearnedCodebook(WeightFormat):
    """A codebook learned from the weights of each layer by k-means."""

    name: ClassVar[str] = "codebook"

    rounds: int = option(30, "how often centres move to the mean of their clusters")

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds must be at least 1, not {self.rounds}")

    def fit(self, rows: torch.Tensor, bits: int) -> Codebook:
        size = rows.square().mean(1).sqrt()
        scale = torch.where(size > 0, size, torch.ones_like(size))
        values = (rows / scale[:, None]).flatten().double()
        values = values[:: -(-len(values) // _MOST_WEIGHTS)].sort().values
        tried = [self._clustered(start, values) for start in _starts(values, 1 << bits)]
        best = min(tried, key=lambda centres: _error(centres, values))
        return Codebook(best.float(), scale)

    def _clustered(self, centres: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        for _ in range(self.rounds):
            centres = _moved(centres, values)
        centres[centres.abs().argmin()] = 0.0
        return centres.sort().values


def _starts(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centres at equal distances, and centres with equally many of the sorted values between them."""
    even = torch.linspace(float(values[0]), float(values[-1]), count, dtype=torch.float64)
    return even, values[((torch.arange(count) + 0.5) * len(values) / count).long()]


def _error(centres: torch.Tensor, values: torch.Tensor) -> float:
    return float((centres[torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)] - values).square().sum())


def _moved(centres: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values nearest to each centre; a centre without any stays."""
    at = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
    number = torch.bincount(at, minlength=len(centres))
    total = torch.bincount(at, values, minlength=len(centres))
    return torch.where(number > 0, total / number.clamp(min=1), centres)
