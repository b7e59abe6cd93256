"""Which images of a data set passes learn from, and which are held out to judge what the passes did.

What was fitted to images looks better on them than it is. So a part of every data set, chosen by the seed, is never
seen by a pass that fits: it is where losses are measured. A set that the user names `JUDGE` is for judging alone, and
then every other set is whole. Few images are worth more to the fit than to the judgement: then nothing is held out, and
what is judged on them says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvc.compiler.data.access import Access, access

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.data.labelled import Truth
    from lvc.compiler.pipeline.workspace import DataSet

JUDGE = "judge"
"""The name of the data set that is for judging alone."""

FEWEST = 10
"""Of fewer images none is held out."""

MOST = 64
"""As many images are held out of a data set at most."""

_SHARE = 5


@dataclass(frozen=True)
class Part:
    """Some images of a data set, by their places in it, in its order; the rest are read and passed over."""

    data: DataSet
    places: frozenset[int]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        until = range(max(self.places, default=-1) + 1)
        return (sample for place, sample in zip(until, self.data, strict=False) if place in self.places)

    @property
    def truth(self) -> Callable[[int], Truth] | None:
        """What the picture at a place shows, where the data have boxes or masks."""
        of_all, places = truth_in(self.data), sorted(self.places)
        return of_all and (lambda place: of_all(places[place]))

    def access(self) -> Access:
        """Return the samples by place."""
        return access(self.data).only(sorted(self.places))


def truth_in(data: DataSet) -> Callable[[int], Truth] | None:
    """What the picture at each place of a data set shows; None where its form tells no more than classes."""
    found: Callable[[int], Truth] | None = getattr(data, "truth", None)
    return found


@dataclass(frozen=True)
class JudgingImages:
    """Images to judge on, and where they are from; ``is_apart`` unless passes were fitted to them as well."""

    data: DataSet
    name: str
    is_apart: bool

    def __str__(self) -> str:
        if self.name == JUDGE:
            return f"of '{JUDGE}'"
        return f"held out from '{self.name}'" if self.is_apart else f"of '{self.name}', to which passes were fitted"


def split(data: DataSet, seed: int) -> tuple[DataSet, DataSet]:
    """Return what passes learn from and what is held out from them: every image is in one of the two.

    A fifth is held out, at most `MOST` images; of fewer than `FEWEST` none, and the second part is empty.
    """
    import torch

    count = len(data)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    apart = min(MOST, round(count / _SHARE)) if count >= FEWEST else 0
    return Part(data, frozenset(order[apart:])), Part(data, frozenset(order[:apart]))
