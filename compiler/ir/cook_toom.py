"""Minimal filtering F(m, 3), which Winograd's convolution is made of: the matrices of Cook and Toom.

``m`` outputs of a filter with three taps take ``m + 2`` multiplications: ``y = A'[(G w) * (B' d)]``, where a row of
``G`` and ``B'`` belongs to each interpolation point. Lavin and Gray, Fast Algorithms for Convolutional Neural Networks
(2016). The points are 0, pairs p and -p, and infinity; those of F(4, 3) were picked for the least rounding, which is
then that of a plain sum (Barabasz, Anderson, Soodhalter and Gregg, 2020, show how much depends on them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

TAPS = 3
KERNELS = ((TAPS, TAPS), (TAPS, 1), (1, TAPS))
"""The windows that it is for. Along an axis with one tap nothing is saved, and nothing done: F(1, 1)."""

PAIRS = {2: (Fraction(1),), 4: (Fraction(3, 4), Fraction(3, 2))}  # by the outputs of a tile

Row = tuple[float, ...]


@dataclass(frozen=True)
class CookToom:
    """The transforms of F(``outputs``, ``kernel``), along one axis."""

    outputs: int
    kernel: int = TAPS

    @classmethod
    @cache
    def of(cls, outputs: int, kernel: int = TAPS) -> CookToom:
        """The one of so many outputs, or of one where there is one tap; its matrices are then computed once."""
        return cls(outputs if kernel > 1 else 1, kernel)

    @classmethod
    def both(cls, outputs: int, kernel: tuple[int, int]) -> tuple[CookToom, CookToom]:
        """Those down and along an image."""
        return cls.of(outputs, kernel[0]), cls.of(outputs, kernel[1])

    @cached_property
    def points(self) -> int:
        """Interpolation points, infinity included: multiplications of a tile."""
        return self.outputs + self.kernel - 1

    @cached_property
    def finite(self) -> tuple[Fraction, ...]:
        """The points, without infinity."""
        if self.kernel == 1:
            return ()
        return (Fraction(0), *(sign * p for p in PAIRS[self.outputs] for sign in (1, -1)))

    @cached_property
    def weights(self) -> tuple[Row, ...]:
        """``G``: from the taps to the points."""
        rows = [tuple(float(p**k / self._slope(p)) for k in range(self.kernel)) for p in self.finite]
        return (*rows, (*(0.0,) * (self.kernel - 1), 1.0))

    @cached_property
    def data(self) -> tuple[Row, ...]:
        """``B'``: from the elements under a tile to the points."""
        zero = Fraction(0)
        rows = [(*_product([q for q in self.finite if q != p]), zero) for p in self.finite]
        return tuple(tuple(map(float, row)) for row in (*rows, _product(self.finite)))

    @cached_property
    def sums(self) -> tuple[Row, ...]:
        """``A'``: from the points to the outputs."""
        last = self.outputs - 1
        return tuple((*(float(p**i) for p in self.finite), float(i == last)) for i in range(self.outputs))

    @cached_property
    def taps(self) -> tuple[Row, ...]:
        """A left inverse of ``G``: from the points back to the taps, through 0, the first pair and infinity."""
        if self.kernel == 1:
            return self.weights
        rest = (0.0,) * (self.points - TAPS)
        half = 0.5 / self.weights[1][1]
        return (1 / self.weights[0][0], 0.0, 0.0, *rest), (0.0, half, -half, *rest), (0.0, 0.0, 0.0, *rest[:-1], 1.0)

    def _slope(self, point: Fraction) -> Fraction:
        return math.prod((point - q for q in self.finite if q != point), start=Fraction(1))


def _product(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the polynomial with these roots, the constant one first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)
