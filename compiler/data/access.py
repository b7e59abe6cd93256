"""Samples of a data set in any order, as training reads them: pictures before they are prepared, or ready inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

MOST_BYTES = 4 << 30
"""Of a data set that is held in memory, because its form can only be read from the start to the end."""

Target = int | np.ndarray | None
"""What a sample is to give: a class, an array such as a mask, or nothing that is known."""


@dataclass(frozen=True)
class Access:
    """The samples of a data set by their places.

    ``where`` names a sample in errors. ``picture`` gives its pixels, ``uint8[H,W,C]``, and ``preprocess`` is how these
    become an input; both are None for a set of ready inputs. ``read`` gives what the model takes, of batch 1.
    ``decodes`` says that a picture takes time to read, which threads can share.
    """

    places: Sequence[int]
    read: Callable[[int], np.ndarray]
    target: Callable[[int], Target]
    picture: Callable[[int], np.ndarray] | None = None
    preprocess: Preprocess | None = None
    decodes: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def only(self, places: Iterable[int]) -> Access:
        """The samples at some of the places of this access."""
        return replace(self, places=[self.places[place] for place in places])

    def targets(self) -> list[Target]:
        """What each sample is to give."""
        return [self.target(place) for place in self.places]


@runtime_checkable
class Accessible(Protocol):
    """A data set whose samples can be read in any order."""

    def access(self) -> Access: ...


def access(data: Iterable[tuple[np.ndarray, int | None]]) -> Access:
    """Return the samples of a data set by place, held in memory where it can only be iterated."""
    return data.access() if isinstance(data, Accessible) else held(data)


def held(data: Iterable[tuple[np.ndarray, int | None]]) -> Access:
    """Hold the samples of a data set in memory; `UsageError` if they take more than `MOST_BYTES`."""
    inputs: list[np.ndarray] = []
    labels: list[int | None] = []
    size = 0
    for array, label in data:
        size += array.nbytes
        if size > MOST_BYTES:
            raise too_large("its form can only be read from start to end")
        inputs.append(array)
        labels.append(label)
    return Access(range(len(inputs)), inputs.__getitem__, labels.__getitem__)


def too_large(why: str) -> UsageError:
    """The error for a data set that memory cannot hold."""
    return UsageError(
        "the data set is too large to be held in memory",
        why=f"more than {MOST_BYTES >> 30} GiB, and {why}",
        help="give it as a folder of images",
    )
