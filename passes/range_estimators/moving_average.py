"""The range whose ends are averages of the ends that batches have."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.passes import option
from lvc.compiler.pipeline.ranks import Ranks
from lvc.passes.quantisation.quantisation_parameters import QuantisationScheme
from lvc.passes.quantisation.range_estimator import Range, RangeEstimator, Watch


@dataclass(frozen=True, kw_only=True)
class MovingAverage(RangeEstimator):
    """Exponential averages of the least and the greatest value of each batch, which one outlier moves little.

    Extremes of single images lie far within those of all, so a batch is a number of images however the model takes
    them; a last batch that is not full counts as far as it goes.
    """

    name: ClassVar[str] = "moving-average"

    weight: float = option(0.1, "how much a new batch counts, above 0 and at most 1")
    batch: int = option(32, "images in a batch")

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise UsageError(f"weight must be above 0 and at most 1, not {self.weight}")
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, not {self.batch}")

    def watch(self, scheme: QuantisationScheme) -> Watch:
        return _Averages(self.weight, self.batch)


class _Averages:
    def __init__(self, weight: float, batch: int) -> None:
        self.weight, self.batch = weight, batch
        self.seen: list[tuple[float, float, int]] = []  # the ends of so many images

    def see(self, values: torch.Tensor) -> None:
        low, high = (float(end) for end in values.aminmax())
        self.seen.append((low, high, len(values) if values.ndim else 1))

    def join(self, ranks: Ranks) -> None:
        told = ranks.collect(json.dumps(self.seen).encode())
        self.seen = [tuple(ends) for part in told for ends in json.loads(part)]

    def range(self) -> Range:
        ends: Range | None = None
        opened, images = (math.inf, -math.inf), 0
        for low, high, count in self.seen:
            opened, images = (min(opened[0], low), max(opened[1], high)), images + count
            if images >= self.batch:
                ends = self._averaged(ends, opened, images)
                opened, images = (math.inf, -math.inf), 0
        return self._averaged(ends, opened, images) if images or ends is None else ends

    def _averaged(self, ends: Range | None, opened: Range, images: int) -> Range:
        if ends is None:
            return opened
        weight = self.weight * min(1.0, images / self.batch)
        low, high = ((1 - weight) * old + weight * new for old, new in zip(ends, opened, strict=True))
        return low, high
