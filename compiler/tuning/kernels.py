"""What tuning asks of a backend: the kernels of a model, the ways in which each can be made, and races of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from lvc.compiler.tuning.judgement import Judge

Choice = str
"""One way to make a kernel: a JSON object of a name and of integers, which only the backend understands."""


@dataclass(frozen=True)
class Race:
    """What came of a race: seconds by contestant, round by round, and those of a second build of the incumbent; and why
    others took no part."""

    rounds: Mapping[Choice, np.ndarray]
    control: np.ndarray
    failures: Mapping[Choice, str]


class Kernel(Protocol):
    """A kernel of a model that can be made in several ways.

    ``key`` names its structure, equal for equal work in any model. ``title`` is for people; ``count`` is how often the
    model runs it, ``seconds`` what one run takes in the model by the rule, ``roof`` what it would take at least.
    """

    @property
    def key(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def problem(self) -> str:
        """What it computes, for whoever improves its rule."""
        ...

    @property
    def count(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def roof(self) -> float: ...

    @property
    def rule(self) -> Choice: ...

    def choices(self) -> Sequence[Choice]:
        """All ways but the rule's, what a cost model likes best first."""
        ...

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        """Build the incumbent twice, the rule's way and the challengers, check that all compute what the rule's does,
        and run them in turns until the ``judge`` is sure. `CannotRace` where the rule's or the incumbent cannot."""
        ...


class CannotRace(Exception):
    """Why a kernel cannot be raced at all; a sentence."""


@dataclass(frozen=True)
class Tunable:
    """A model whose kernels can be tuned. ``processor`` and ``version`` are those that times are known by, and ``rest``
    are the seconds of all that has but one way to be made."""

    kernels: Sequence[Kernel]
    processor: str
    version: str
    rest: float
    measure: Callable[[Mapping[str, Choice]], Mapping[str, np.ndarray]]
    """Run the model with choices by the keys of kernels in turns with the model by the rules: seconds
    ``f64[rounds, 3]`` by rule, by rule again as a control, and as chosen, for the key of each of these kernels, and
    under "" for the whole. Each block of rounds finds the models at other places in memory."""
    workers: int = 1
    """How many races can be run at once, each by a thread."""
