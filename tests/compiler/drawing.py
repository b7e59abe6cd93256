"""Random tensors, sizes and options for calls of ATen operators.

To draw is to ask a `random.Random`, so that hypothesis and a plain seeded loop can both do it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.uint8)
BOOL = (torch.bool,)
ANY = FLOATS + WHOLE + BOOL

Arguments = dict[str, Any]


class Draw:
    """Random tensors, sizes and options."""

    def __init__(self, source: random.Random, dtypes: Sequence[torch.dtype] = ANY) -> None:
        self.random = source
        self.dtypes = dtypes

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def flag(self) -> bool:
        return self.pick(False, True)

    def value(self, low: float = -2, high: float = 2) -> float:
        return self.pick(round(self.random.uniform(low, high), 2), self.number(math.ceil(low), math.floor(high)))

    def real(self, low: float, high: float) -> float:
        return round(self.random.uniform(low, high), 3)

    def shape(self, low: int = 0, high: int = 4, largest: int = 4) -> tuple[int, ...]:
        return tuple(self.number(1, largest) for _ in range(self.number(low, high)))

    def tensor(
        self, shape: Sequence[int], dtypes: Sequence[torch.dtype] = FLOATS, low: float = -3, high: float = 3
    ) -> Tensor:
        dtype = self.pick(*[dtype for dtype in dtypes if dtype in self.dtypes])
        generator = torch.Generator().manual_seed(self.number(0, 1 << 30))
        if dtype.is_floating_point:
            x = torch.rand(tuple(shape), generator=generator, dtype=torch.float64) * (high - low) + low
            halves = torch.rand(tuple(shape), generator=generator) < 0.2
            rounded = (x * 2).round() / 2
            return torch.where(halves & (rounded >= low) & (rounded <= high), rounded, x).to(dtype)
        first = 0 if dtype in (torch.bool, torch.uint8) else math.ceil(low)
        last = 1 if dtype is torch.bool else max(first, math.floor(high))
        return torch.randint(first, last + 1, tuple(shape), generator=generator).to(dtype)

    def any(self, low: int = 0, high: int = 4, dtypes: Sequence[torch.dtype] = ANY) -> Tensor:
        return self.tensor(self.shape(low, high), dtypes)

    def dim(self, x: Tensor) -> int:
        rank = max(1, x.ndim)
        return self.number(-rank, rank - 1)

    def dims(self, x: Tensor, least: int = 0) -> list[int]:
        """Some of the dimensions, each counted from either end."""
        count = self.number(min(least, x.ndim), x.ndim)
        return [d - self.pick(0, x.ndim) for d in self.random.sample(range(x.ndim), count)]

    def broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that goes beside another one: shorter, or with ones."""
        cut = tuple(shape)[self.number(0, len(shape)) if self.flag() else 0 :]
        return tuple(self.pick(1, size) for size in cut)

    def beside(self, x: Tensor, dtypes: Sequence[torch.dtype] = ANY, low: float = -3, high: float = 3) -> Tensor:
        return self.tensor(self.broadcast(x.shape), dtypes, low, high)

    def maybe(self, value: Any) -> Any:
        return self.pick(None, value)

    def factors(self, count: int) -> list[int]:
        """Numbers with a given product."""
        found: list[int] = []
        while count > 1:
            factor = self.pick(*[f for f in range(2, count + 1) if count % f == 0])
            found.append(factor)
            count //= factor
        for _ in range(self.number(0, 2)):
            found.insert(self.number(0, len(found)), 1)
        return found


Drawn = Callable[[Draw], Arguments]
