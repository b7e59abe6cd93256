"""Observers of a pipeline: time, verification, numeric drift, dumps, an early stop."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import picture, verify
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Observer, Step


class Timer(Observer):
    """Measures the seconds that each pass took, without those of other observers if it comes first."""

    def start(self, model: Model) -> None:
        self.started: dict[str, float] = {}

    def before(self, step: Step, model: Model) -> bool:
        self.started[step.place] = time.perf_counter()
        return True

    def after(self, step: Step, model: Model) -> None:
        step.measured["seconds"] = time.perf_counter() - self.started[step.place]


class Verifier(Observer):
    """Verifies the model after every pass, and that the signature is what it was unless the pass may change it.

    A model that looks as it did when it was verified last is not verified again.
    """

    def start(self, model: Model) -> None:
        verify(model)
        self.verified = picture(model)
        self.signatures: dict[str, tuple[object, ...]] = {}

    def before(self, step: Step, model: Model) -> bool:
        self.signatures[step.place] = (model.inputs, model.outputs)
        return True

    def after(self, step: Step, model: Model) -> None:
        if (found := picture(model)) != self.verified:
            verify(model)
            self.verified = found
        before = self.signatures[step.place]
        if not step.item.changes_signature and (model.inputs, model.outputs) != before:
            raise CheckError(f"{step.item.name} changed the model's signature", why="the pass does not say that it may")

    def resume(self, model: Model) -> None:
        verify(model)
        self.verified = picture(model)


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest absolute difference over the largest wanted value; infinite if shapes or non-finite places differ."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(
        found[~finite], wanted[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(wanted[finite]).max()) or 1.0
    return float(np.abs(found[finite] - wanted[finite]).max()) / scale


class Drift(Observer):
    """Runs the model before and after every pass on seeded inputs; refuses more drift than the effect allows."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def start(self, model: Model) -> None:
        self.known: dict[str, tuple[np.ndarray, ...]] = {}
        self._restart(model)

    def before(self, step: Step, model: Model) -> bool:
        if step.outer:  # that has changed the model since it ran last
            self._restart(model)
        self.known[step.place] = self.outputs
        return True

    def after(self, step: Step, model: Model) -> None:
        before = self.known.pop(step.place)
        if step.item.changes_signature:
            self._restart(model)
            return
        self.outputs = model(*self.inputs)
        drift = max(relative_difference(new, old) for new, old in zip(self.outputs, before, strict=True))
        step.measured["drift"] = drift
        bound = step.item.effect.value
        if drift > bound:
            kind = Effect(bound).name.lower()
            raise CheckError(
                f"{step.item.name} moved the outputs by {drift:.2e} relative",
                why=f"the pass promises to be {kind}: at most {bound:.0e}",
                help="a defect of the pass, or weights of extreme range; leave the pass out to go on",
            )

    def resume(self, model: Model) -> None:
        self._restart(model)

    def _restart(self, model: Model) -> None:
        self.inputs = seeded_inputs(model.inputs, self.seed)
        self.outputs = model(*self.inputs)


class Dump(Observer):
    """Writes the printed graph as it comes in and after every pass into a folder, numbered in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, model: Model) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "00-input.txt").write_text(model.to_text())

    def after(self, step: Step, model: Model) -> None:
        (self.folder / f"{_file_number(step)}-{step.item.name}.txt").write_text(model.to_text())


def _file_number(step: Step) -> str:
    return f"{_file_number(step.outer)}.{step.number}" if step.outer else f"{step.number:02}"


class StopAfter(Observer):
    """Ends the run after so many passes."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def before(self, step: Step, model: Model) -> bool:
        return step.outer is not None or step.number <= self.passes
