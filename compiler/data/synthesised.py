"""The data set that is made from the model itself: ``synthesised``, or ``synthesised,images=2000,steps=400``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvc.compiler.data.access import Access
from lvc.compiler.data.images import prepare
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Sample, Samples
from lvc.compiler.errors import UsageError, did_you_mean

WORD = "synthesised"
_COUNTS = ("images", "steps", "batch")


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What images are made, and how; `lvc.compiler.running.synthesis` says what the weights are of."""

    images: int = 512
    steps: int = 200
    batch: int = 128
    rate: float = 0.1
    statistics: float = 1.0
    classes: float = 0.1
    variation: float = 0.05
    l2: float = 0.001

    @classmethod
    def parse(cls, text: str) -> Synthesis:
        """Read ``synthesised,NAME=NUMBER,...``; `UsageError` with a suggestion for anything else."""
        known = [field.name for field in dataclasses.fields(cls)]
        found: dict[str, float] = {}
        for item in text.split(",")[1:]:
            name, equals, number = (part.strip() for part in item.partition("="))
            if name not in known or not equals:
                help = f"{did_you_mean(name, known)}settings: {', '.join(known)}"
                raise UsageError(f"'{item}' is not a setting of {WORD} images", help=help)
            found[name] = _number(name, number)
        return cls(**found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        fields = [(field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)]
        return ",".join([WORD, *(f"{name}={value:g}" for name, value, usual in fields if value != usual)])


def is_synthesised(text: str) -> bool:
    """Whether the text of a data set names this one; a file or folder of that name comes first."""
    return text.split(",", maxsplit=1)[0] == WORD and not Path(text).exists()


def samples_of(inputs: np.ndarray, preprocess: Preprocess | None, fits: Fit) -> Samples:
    """The data set of images ``uint8[N,H,W,C]``, which have the size that the model takes, or of ready inputs."""

    def sample(place: int) -> np.ndarray:
        where = f"{WORD}, image {place}"
        return fits(prepare(inputs[place], where, preprocess, fits) if preprocess else inputs[place], where)

    def read() -> Iterator[Sample]:
        return ((f"{WORD}, image {place}", sample(place), None) for place in range(len(inputs)))

    def by_place() -> Access:
        picture = inputs.__getitem__ if preprocess else None
        return Access(range(len(inputs)), sample, lambda _: None, picture, preprocess)

    return Samples(read, lambda: len(inputs), fits, unlabelled=f"images that are {WORD} have none", by_place=by_place)


def _number(name: str, text: str) -> float:
    try:
        number = int(text) if name in _COUNTS else float(text)
    except ValueError:
        number = math.nan
    if not (number >= (1 if name in _COUNTS else 0) and math.isfinite(number)):
        wanted = "an integer from 1" if name in _COUNTS else "a number from 0"
        raise UsageError(f"{name} of {WORD} images must be {wanted}, not '{text}'")
    return number
