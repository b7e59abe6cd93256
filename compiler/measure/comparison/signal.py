"""Signal and noise between what is wanted and what is found, summed over as much data as comes.

The signal-to-quantisation-noise ratio is ``SQNR = 10 log10(sum y^2 / sum (z - y)^2)`` in decibels: 6 dB a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class Signal:
    """Sums over pairs of values: ``y`` is wanted, ``z`` found."""

    yy: float = 0.0
    zz: float = 0.0
    yz: float = 0.0
    noise: float = 0.0

    def add(self, wanted: torch.Tensor, found: torch.Tensor) -> None:
        """Take note of two tensors of one shape."""
        y, z = wanted.flatten().double(), found.flatten().double()
        self.yy += float(y @ y)
        self.zz += float(z @ z)
        self.yz += float(y @ z)
        self.noise += float((z - y).square().sum())

    @property
    def sqnr(self) -> float:
        """The SQNR in dB; infinite without noise."""
        return decibels(self.yy, self.noise)

    @property
    def best_sqnr(self) -> float:
        """The SQNR in dB of ``z`` times the factor that serves best: for values whose unit is not known."""
        return decibels(self.yy, self.yy - self.yz**2 / self.zz) if self.zz else -math.inf

    @property
    def cosine(self) -> float:
        """The cosine of the angle between all wanted and all found values; 1 if both are zero."""
        if not self.yy or not self.zz:
            return float(self.yy == self.zz)
        return self.yz / math.sqrt(self.yy * self.zz)


def sqnr(signal: torch.Tensor, noise: torch.Tensor) -> float:
    """Return the signal-to-noise ratio of two tensors in dB; infinite without noise."""
    return decibels(float(signal.double().square().sum()), float(noise.double().square().sum()))


def decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``: infinite without noise, minus infinity if nothing is left of the signal."""
    if not math.isfinite(noise):
        return -math.inf
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
