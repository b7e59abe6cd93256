"""Levels at equal distances: whole numbers from ``-2^(b-1)`` to ``2^(b-1) - 1`` times a scale.

Of the scales that cut off more and more of the largest weights, each row gets the one with the least squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.quantisation.grids import GridKind
from lvc.passes.quantisation.stored import stored_grid
from lvc.passes.quantisation.weight_grid import Levels, WeightGrid


@dataclass(frozen=True, kw_only=True)
class Linear(WeightGrid):
    """Levels at equal distances."""

    name: ClassVar[str] = "linear"
    steps: ClassVar[str] = "linear"

    def fit(self, rows: torch.Tensor, bits: int) -> Levels:
        kind = GridKind(bits=bits, axis=0, symmetric=True, scale=self.steps, stored=True)
        half = 1 << (bits - 1)
        return Levels(torch.arange(-half, half).float(), stored_grid(kind, rows, least_error=True).scale)
