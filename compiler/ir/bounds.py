"""How large the sums of an integer layer can get: proofs of what its kernel may do, from its actual weights.

Data lies in ``[low, high]`` and products are of ``q - z``, so for one output ``sum w * (q - z)`` is at most
``sum max(w * (low - z), w * (high - z))``, which is reached. A window that reaches out of the image has zeros, and zero
lies in the range, so the bounds hold there too; and for partial sums in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

INT32 = (1 << 31) - 1
EXACT_FLOAT32 = 1 << 24  # integers up to here, and their sums, are exact in single precision
INT16 = (1 << 15) - 1
FLOAT16 = 65504.0  # the largest number of half precision
FLOAT16_TERMS = 256  # products that are summed in half precision before their sum is added to one in single


@dataclass(frozen=True)
class DataRange:
    """The integers that a layer's data consists of, and the one that stands for zero."""

    low: int
    high: int
    zero_point: int

    @classmethod
    def of(cls, dtype: torch.dtype, zero_point: int) -> DataRange:
        """All numbers of a type."""
        limits = torch.iinfo(dtype)
        return cls(limits.min, limits.max, zero_point)

    @property
    def least(self) -> int:
        return min(self.low - self.zero_point, 0)

    @property
    def most(self) -> int:
        return max(self.high - self.zero_point, 0)


def sum_bound(weight: torch.Tensor, data: DataRange, bias: torch.Tensor | None = None) -> int:
    """The largest absolute value that any partial sum of any output can have. ``weight`` is ``[outputs, ...]``."""
    rows = weight.reshape(weight.shape[0], -1).to(torch.int64)
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    most = positive * data.most + negative * data.least
    least = positive * data.least + negative * data.most
    if bias is not None:
        most = most + bias.to(torch.int64).clamp(min=0)
        least = least + bias.to(torch.int64).clamp(max=0)
    return int(max(most.max(), -least.min())) if rows.shape[0] else 0


def product_bound(depth: int, left: DataRange, right: DataRange) -> int:
    """The largest absolute value that any sum of so many products of data with data can have."""
    products = [a * b for a in (left.least, left.most) for b in (right.least, right.most)]
    return depth * max(map(abs, products))


def group_bounds(weights: torch.Tensor, data: DataRange) -> torch.Tensor:
    """The largest absolute value that any partial sum of the products along the last dimension can have, for each place
    in the others. The products are of ``q`` itself, as ``vpmaddubsw`` makes them in 16 bits."""
    wide, raw = weights.to(torch.int32), DataRange(data.low, data.high, 0)
    positive, negative = wide.clamp(min=0).sum(-1), wide.clamp(max=0).sum(-1)
    most = positive * raw.most + negative * raw.least
    least = positive * raw.least + negative * raw.most
    return torch.maximum(most, -least)
