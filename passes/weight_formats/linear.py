"""Uniform steps: integers from ``-2^(b-1)`` to ``2^(b-1) - 1`` times a scale.

Of the scales that cut off more and more of the largest weights, each row gets the one with the least squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.weight_format import Codebook, WeightFormat
from lvc.passes.quantisation.weight_parameters import weight_parameters


@dataclass(frozen=True, kw_only=True)
class Linear(WeightFormat):
    """Uniform steps."""

    name: ClassVar[str] = "linear"
    steps: ClassVar[str] = "linear"

    def fit(self, rows: torch.Tensor, bits: int) -> Codebook:
        scheme = QuantisationScheme(bits=bits, axis=0, symmetric=True, scale=self.steps, stored=True)
        half = 1 << (bits - 1)
        return Codebook(torch.arange(-half, half).float(), weight_parameters(scheme, rows, least_error=True).scale)
