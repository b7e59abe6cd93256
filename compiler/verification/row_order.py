"""Outputs whose rows a model has put in order: where two scores differ by less than rounding, either may stand first.

The queries of a detector such as RT-DETR are the best of all places of a picture. Who computes them with other rounding
has the same rows in another order, so rows are compared with those that they are nearest to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import ordering

MOST_ROWS = 1024
"""Of more rows, each is not compared with every other."""

Arrays = Sequence[np.ndarray]


def orders_rows(model: Model) -> bool:
    """Whether a model puts values in order, and has tables of rows ``[images, rows, columns]`` of fixed length."""
    is_ordering = any(True for _ in calls(model.module.graph, ordering.argsort))
    return is_ordering and not model.counts and bool(_tables([value.spec.shape for value in model.outputs]))


def in_order_of(own: Arrays, other: Arrays) -> list[np.ndarray]:
    """The ``other`` outputs with rows in the order of those of ``own`` that they are nearest to.

    Rows of tables of one length, and lists of as many numbers beside them, go together: a box with its scores.
    """
    made = list(other)
    for places in _tables([array.shape for array in own]):
        ours, theirs = (_rows([arrays[place] for place in places], [own[p] for p in places]) for arrays in (own, other))
        order = np.stack([_partners(*pair) for pair in zip(ours, theirs, strict=True)])
        for place in places:
            index = order.reshape(*order.shape, *[1] * (other[place].ndim - 2))
            made[place] = np.take_along_axis(other[place], index, 1)
    return made


def _tables(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The outputs whose rows belong together, by their places: at least one of each group is a table."""
    groups = defaultdict(list)
    for place, shape in enumerate(shapes):
        if len(shape) in (2, 3) and 1 < shape[1] <= MOST_ROWS:
            groups[shape[:2]].append(place)
    return [places for places in groups.values() if any(len(shapes[place]) == 3 for place in places)]


def _rows(arrays: Arrays, own: Arrays) -> np.ndarray:
    """Outputs side by side, ``f64[images, rows, columns]``, in shares of the largest number of each of ``own``."""
    parts = []
    for array, ours in zip(arrays, own, strict=True):
        finite = np.abs(ours[np.isfinite(ours)], dtype=np.float64)
        parts.append(array.reshape(*array.shape[:2], -1).astype(np.float64) / (finite.max(initial=0.0) or 1.0))
    return np.asarray(np.nan_to_num(np.concatenate(parts, 2), posinf=2.0, neginf=-2.0))


def _partners(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each row of one table that of another one, each once, which is nearest of those that are left."""
    found, free = np.zeros(len(ours), np.int64), np.ones(len(theirs), bool)
    for place, row in enumerate(ours):
        apart = np.where(free, np.abs(theirs - row).max(1), np.inf)
        found[place] = apart.argmin()
        free[found[place]] = False
    return found
