"""A logarithmic codebook: zero and plus or minus ``2^-e``, times the largest.

Small weights, of which there are most, get values close together; a product with one is a shift.

Source: Miyashita et al. 2016, "Convolutional neural networks using logarithmic data representation", section 3;
Zhou et al. 2017, "Incremental network quantization", section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.weight_format import Codebook, WeightFormat, largest

_LEAST_EXPONENT = -60
_TRIED = 8


@dataclass(frozen=True, kw_only=True)
class Log(WeightFormat):
    """Zero, and powers of two of both signs."""

    name: ClassVar[str] = "log"

    def fit(self, rows: torch.Tensor, bits: int) -> Codebook:
        positive = torch.exp2(-torch.arange((1 << (bits - 1)) - 1).float().clamp(max=-_LEAST_EXPONENT)).flip(0)
        values = torch.cat([-positive.flip(0), torch.zeros(2), positive])
        most = largest(rows)
        tried = [Codebook(values, most * 2 ** (-place / _TRIED)) for place in range(_TRIED)]
        best = torch.stack([codebook.error(rows) for codebook in tried]).argmin(0)
        return Codebook(values, torch.stack([codebook.scale for codebook in tried]).gather(0, best[None])[0])
