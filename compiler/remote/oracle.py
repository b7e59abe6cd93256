"""What a board's answers are held against: the same code, run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import EMULATED_MACS, Executable, Untimed
from lvc.compiler.errors import LvcError
from lvc.compiler.loaded import load
from lvc.compiler.measure.artefact import artefact_layers
from lvc.compiler.text import si

BOUND = 1e-5
"""The same code gives the same bits, but for functions of the C library, which differ in the last place."""


@dataclass
class SameCode:
    """An artefact as this machine runs it, perhaps by emulation.

    ``largest`` is the largest difference that was let pass, relative to the largest value of an output.
    """

    artefact: Artefact
    executable: Executable
    largest: float = 0.0

    @property
    def is_slow(self) -> bool:
        return isinstance(self.executable, Untimed)

    @property
    def name(self) -> str:
        return "the same code, emulated here" if self.is_slow else "the same code, run here"

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        fault, largest = difference_of(self.artefact, self.executable(*inputs), outputs, self.name)
        self.largest = max(self.largest, largest)
        return fault


@dataclass
class Known:
    """Outputs that are known, of one set of inputs."""

    artefact: Artefact
    wanted: Sequence[np.ndarray]
    name: str = "the same code, run here"
    largest: float = 0.0

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        fault, largest = difference_of(self.artefact, self.wanted, outputs, self.name)
        self.largest = max(self.largest, largest)
        return fault


def difference_of(
    artefact: Artefact, wanted: Sequence[np.ndarray], found: Sequence[np.ndarray], name: str
) -> tuple[str, float]:
    """What is wrong with outputs that should be those of the same code, named ``name``, as a sentence, empty if they
    are within `BOUND`; and the largest difference that was let pass."""
    largest = 0.0
    for value, ours, theirs in zip(artefact.outputs, wanted, found, strict=True):
        if np.array_equal(ours, theirs, equal_nan=ours.dtype.kind in "fc"):
            continue
        if ours.dtype.kind not in "fc":
            return f"output '{value.name}' differs in {np.mean(ours != theirs):.2%} of its places from {name}", largest
        from lvc.compiler.pipeline.observers import relative_difference

        difference = relative_difference(theirs, ours)
        if not difference <= BOUND:
            return f"output '{value.name}' is {difference:.1e} from {name}, relative", largest
        largest = max(largest, difference)
    return "", largest


def same_code(artefact: Artefact, threads: int | None) -> tuple[SameCode | None, str]:
    """The oracle of an artefact; without one a sentence that says why."""
    try:
        return SameCode(artefact, load(artefact, threads).executable), ""
    except LvcError as error:
        amount = sum(layer.macs for layer in artefact_layers(artefact))
        if amount > EMULATED_MACS:
            return None, f"this machine cannot run the code, and {si(amount, 'MACs')} take minutes to emulate"
        try:
            return SameCode(artefact, load(artefact, threads, emulate=True).executable), ""
        except LvcError as missing:
            return None, f"this machine cannot run the code ({error.what}; {missing.what})"
