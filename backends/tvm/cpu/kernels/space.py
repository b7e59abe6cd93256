"""The ways in which a kernel may be written, beside the one that its rule picks: what tuning searches.

Each kernel's file says what they are, by the predicates that its rule uses; a new kernel joins by a function ``space``.
How work is split over threads stays the rule's for every choice: trials run on one thread and cannot judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from typing import Any

from lvc.backends.tvm.cpu.kernels.register_tile import Run, cut
from lvc.backends.tvm.cpu.kernels.tile_cost import TileCost

Point = tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """``points`` are the legal values of the free knobs, which are called ``names``; ``knobs`` makes all knobs of one,
    and ``cycles`` is what the cost model thinks of it, on one thread."""

    names: tuple[str, ...]
    points: tuple[Point, ...]
    knobs: Callable[[Point], Any]
    cycles: Callable[[Point], float]

    def point(self, knobs: Any) -> Point:
        """The free ones of some knobs."""
        return tuple(int(getattr(knobs, name)) for name in self.names)


def tiles(cost: TileCost, heights: Sequence[int], plane: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The register tiles (vectors, scalars) that fit, of these heights and within a plane, each once."""
    for vectors in (height for height in heights if is_its_own(cut(plane[0], height), height)):
        for scalars in takewhile(partial(_fits, cost, plane[1], vectors), count(1)):
            if is_its_own(cost.cut(plane[1], scalars), scalars):
                yield vectors, scalars


def _fits(cost: TileCost, extent: int, vectors: int, scalars: int) -> bool:
    return scalars <= extent and cost.fits(vectors, scalars)


def is_its_own(runs: Sequence[Run], size: int) -> bool:
    """Whether what is cut into tiles of at most a size has one of that size: else a smaller one gives the same."""
    return runs[0].size == size
