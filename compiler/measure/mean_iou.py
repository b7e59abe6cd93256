"""How well a model tells the classes of pixels: intersections over unions, and the share that is right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lvc.compiler.data.labelled import UNKNOWN, checked_mask
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.evaluation import unknown_class


@dataclass
class Confusion:
    """How many pixels of each class were taken for which, ``i64[classes, classes]``: rows are what they are."""

    classes: int
    images: int = 0
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, self.classes), np.int64)

    def add(self, found: np.ndarray, wanted: np.ndarray, where: str) -> None:
        """Count the pixels of a picture, but for those that are `UNKNOWN` or that the model did not see (below 0)."""
        checked_mask(wanted, found.shape, where)
        known = wanted != UNKNOWN
        if known.any() and wanted[known].max() >= self.classes:
            error = unknown_class(int(wanted[known].max()), self.classes)
            raise UsageError(error.what.replace("an image", "a pixel"), where=where, help=error.help)
        counted = known & (found >= 0)
        pairs = wanted[counted] * self.classes + found[counted]
        self.counts += np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)
        self.images += 1

    @property
    def pixels(self) -> int:
        return int(self.counts.sum())

    @property
    def right(self) -> float:
        """The share of the pixels whose class is right."""
        return float(self.counts.trace() / max(1, self.pixels))

    @property
    def by_class(self) -> dict[int, float]:
        """The intersection over union of each class that is there or was found."""
        both = self.counts.diagonal()
        unions = self.counts.sum(0) + self.counts.sum(1) - both
        return {int(i): float(both[i] / unions[i]) for i in np.flatnonzero(unions)}

    @property
    def mean(self) -> float:
        """The mean of `by_class`."""
        found = self.by_class
        return sum(found.values()) / max(1, len(found))
