"""A model of kernels that exist in numbers alone, to tune without a compiler.

Run as a program it tunes that model: ``tuned_sketch.py DATABASE TRIALS [SECONDS A RACE]``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lvc.compiler.tuning.account import Account
from lvc.compiler.tuning.budget import Budget
from lvc.compiler.tuning.database import Database
from lvc.compiler.tuning.judgement import Judge
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race, Tunable
from lvc.compiler.tuning.tuner import Tuner

ROUNDS = 40


def choice(knob: int) -> Choice:
    return json.dumps({"kernel": "sketch", "knob": knob})


RULE = choice(0)


@dataclass
class SketchKernel:
    """A kernel whose knob takes least time at ``best``; the rule's is 0, which is ``off`` times as slow."""

    key: str
    best: int
    off: float = 1.5
    count: int = 1
    seconds: float = 1e-3
    roof: float = 2e-4
    knobs: int = 30
    broken: Mapping[int, str] = field(default_factory=dict)
    wait: float = 0.0
    raced: list[Choice] = field(default_factory=list)
    title: str = "a sketch"
    problem: str = "a problem"
    rule: Choice = RULE

    def choices(self) -> Sequence[Choice]:
        return [choice(knob) for knob in range(1, self.knobs)]

    def time_of(self, one: Choice) -> float:
        knob = int(json.loads(one)["knob"])
        far = min(1.0, abs(knob - self.best) / max(1, self.best))
        return self.seconds * (1 / self.off + (1 - 1 / self.off) * far)

    def race(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        time.sleep(self.wait)
        if incumbent not in (self.rule, *self.choices()):
            raise CannotRace("there is no such knob")
        self.raced += challengers
        failures = {one: why for one in challengers if (why := self.broken.get(json.loads(one)["knob"]))}
        random = np.random.default_rng(len(self.raced))

        def rounds(one: Choice) -> np.ndarray:
            return self.time_of(one) * (1 + 0.02 * random.random(ROUNDS))

        names = dict.fromkeys((incumbent, self.rule, *(one for one in challengers if one not in failures)))
        return Race({one: rounds(one) for one in names}, rounds(incumbent), failures)


def tunable(kernels: Sequence[SketchKernel], slower: Sequence[str] = (), workers: int = 1) -> Tunable:
    """A model of kernels; those whose keys are in ``slower`` take twice as long in the model as by their rule."""

    def measure(choices: Mapping[str, Choice]) -> Mapping[str, np.ndarray]:
        found = {}
        for kernel in kernels:
            tuned = kernel.time_of(choices[kernel.key]) if kernel.key in choices else kernel.seconds
            times = [kernel.seconds, kernel.seconds, 2 * kernel.seconds if kernel.key in slower else tuned]
            found[kernel.key] = kernel.count * np.array([times] * ROUNDS)
        return {"": sum(found.values(), np.zeros((ROUNDS, 3))), **found}

    return Tunable(kernels, "a processor", "a version", 1e-4, measure, workers)


def tune(kernels: Sequence[SketchKernel], location: str | Path, budget: Budget, slower: Sequence[str] = ()) -> Account:
    return Tuner(tunable(kernels, slower), Database(location, create=True), budget).run()


def three() -> list[SketchKernel]:
    return [SketchKernel("a", 7, seconds=4e-3), SketchKernel("b", 12, count=3), SketchKernel("c", 0)]


if __name__ == "__main__":
    models = three()
    for kernel in models:
        kernel.wait = float(sys.argv[3])
    print(tune(models, sys.argv[1], Budget(trials=int(sys.argv[2]))).trials)
