"""Units removed one after another, each time the one whose loss the other weights can make up best.

For a reader with weights ``W`` and the inverse ``G`` of the second moments of what it reads, removing the columns ``c``
and fitting all others anew by least squares adds

    W_c (G_cc)^-1 W_c^T                        to the squared error, after which
    W -= W_c (G_cc)^-1 G_c:      and      G -= G_:c (G_cc)^-1 G_c:

Sources: Hassibi and Stork, "Second order derivatives for network pruning: optimal brain surgeon", 1993; Kurtic et al.,
"ZipLM: inference-aware structured pruning of language models", 2023, section 3.1, for whole structures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.passes.fitting.ridge import inverse
from lvc.passes.pruning.readers import Reader

_MOST_FREE = 0.2
"""The share of columns that have gone at which the matrices are closed up."""

_STEPS = 64
"""Removals after which the errors are computed anew; a group of more units gives up several at once."""


def eliminate(states: Sequence[State], size: int) -> torch.Tensor:
    """Return the squared error at which each unit goes, ``f64[size]``: least for the first, never falling."""
    reached = torch.zeros(size, dtype=torch.float64)
    alive, total, at_once = list(range(size)), 0.0, -(-size // _STEPS)
    while alive:
        added = torch.stack([state.costs(alive) for state in states]).sum(0).clamp(min=0)
        for place in added.argsort()[:at_once].tolist():
            total += float(added[place])
            reached[alive[place]] = total
        gone = {alive[place] for place in added.argsort()[:at_once].tolist()}
        alive = [unit for unit in alive if unit not in gone]
        for state in states if alive else ():
            state.remove(sorted(gone))
    return reached


class State:
    """One reader while units go: its weights and the inverse of its second moments."""

    def __init__(self, reader: Reader, xx: torch.Tensor, importance: torch.Tensor) -> None:
        """``xx`` is the covariance of the reader's columns, ``importance`` how much an error of each output counts."""
        self._inverse = inverse(xx)
        self._weight = reader.weight * importance.sqrt()[:, None]
        self._columns = {
            unit: (reader.units == unit).nonzero()[:, 0] for unit in sorted(set(reader.units.tolist()) - {-1})
        }
        self._without_unit = (reader.units < 0).nonzero()[:, 0]
        self._free = 0

    def costs(self, units: Sequence[int]) -> torch.Tensor:
        """Return the squared error that removing each of the units alone would add, ``f64[units]``."""
        found = torch.zeros(len(units), dtype=torch.float64)
        by_count: dict[int, list[int]] = {}
        for place, unit in enumerate(units):
            by_count.setdefault(len(self._columns.get(unit, ())), []).append(place)
        for count, places in by_count.items():
            if count:
                columns = torch.stack([self._columns[units[place]] for place in places])
                inverse = self._inverse[columns[:, :, None], columns[:, None, :]]
                weight = self._weight[:, columns].movedim(0, 1)
                found[places] = (torch.linalg.solve(inverse, weight.mT) * weight.mT).sum((1, 2))
        return found

    def remove(self, units: Sequence[int]) -> None:
        """Remove units; together they leave what they leave one after another."""
        known = [self._columns[unit] for unit in units if unit in self._columns]
        if not known:
            return
        columns = torch.cat(known)
        share = torch.linalg.solve(self._inverse[columns][:, columns], self._inverse[columns])
        self._weight.addmm_(self._weight[:, columns], share, alpha=-1)
        self._inverse.addmm_(self._inverse[:, columns], share, alpha=-1)
        self._weight[:, columns] = 0
        gone = set(units)
        self._columns = {unit: at for unit, at in self._columns.items() if unit not in gone}
        self._free += len(columns)
        if self._free > _MOST_FREE * len(self._inverse):
            self._close_up()

    def _close_up(self) -> None:
        """Leave the columns out that have gone, for every removal costs as much as there are."""
        kept = torch.cat([self._without_unit, *self._columns.values()]).sort().values
        places = torch.zeros(len(self._inverse), dtype=torch.int64)
        places[kept] = torch.arange(len(kept))
        self._inverse, self._weight = self._inverse[kept][:, kept], self._weight[:, kept]
        self._without_unit = places[self._without_unit]
        self._columns = {unit: places[at] for unit, at in self._columns.items()}
        self._free = 0
