"""The range whose ends are averages of the ends that batches have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.passes import option
from lvc.passes.quantisation.grids import GridKind
from lvc.passes.quantisation.observer import Range, RangeObserver, Watch


@dataclass(frozen=True, kw_only=True)
class MovingAverage(RangeObserver):
    """Exponential averages of the least and the greatest value of each batch, which one outlier moves little."""

    name: ClassVar[str] = "moving-average"

    weight: float = option(0.05, "how much a new batch counts, above 0 and at most 1")

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise UsageError(f"weight must be above 0 and at most 1, not {self.weight}")

    def watch(self, kind: GridKind) -> Watch:
        return _Averages(self.weight)


class _Averages:
    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.ends: Range | None = None

    def see(self, values: torch.Tensor) -> None:
        found = [float(end) for end in values.aminmax()]
        old = self.ends or (found[0], found[1])
        low, high = ((1 - self.weight) * end + self.weight * new for end, new in zip(old, found, strict=True))
        self.ends = (low, high)

    def range(self) -> Range:
        assert self.ends is not None
        return self.ends
