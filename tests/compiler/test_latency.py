"""Two models are compared fairly on a machine that other programs slow down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.measure import device, latency, timing
from lvc.compiler.measure.latency import TargetStopwatch
from lvc.compiler.pipeline.catalogue import BACKENDS
from lvc.compiler.pipeline.workspace import Workspace


class Machine:
    """Stands for `interleave`: the first model takes half of the second's time, with noise that both share or not."""

    def __init__(self, shared: float, own: float) -> None:
        self._random = np.random.default_rng(0)
        self._shared, self._own = shared, own
        self.rounds = 0

    def interleave(self, runs: list[Any], *, repeats: int, clock: str, **_: object) -> list[timing.Timing]:
        self.rounds += repeats
        slowdown = np.exp(self._shared * self._random.standard_normal(repeats))
        samples = (
            work * slowdown * np.exp(self._own * self._random.standard_normal(repeats)) for work in (0.5e-2, 1e-2)
        )
        return [timing.Timing(tuple(times)) for times in samples]


def race(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(device, "interleave", machine.interleave)
    monkeypatch.setattr(TargetStopwatch, "call", lambda *_: (lambda: (), ()))
    stopwatch = TargetStopwatch("reference", Workspace(threads=1))
    return stopwatch.compare(object(), object()).share  # type: ignore[arg-type]


def test_what_slows_both_models_down_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(shared=1.0, own=1e-4)
    assert race(machine, monkeypatch) == pytest.approx(0.5, rel=1e-3)
    assert machine.rounds == latency._ROUNDS


def test_a_noisy_machine_is_measured_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(shared=0.5, own=0.04)
    assert race(machine, monkeypatch) == pytest.approx(0.5, rel=0.03)
    assert latency._ROUNDS < machine.rounds < latency._MOST_ROUNDS


def test_measuring_ends_on_the_noisiest_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(shared=0.5, own=2.0)
    race(machine, monkeypatch)
    assert machine.rounds == latency._MOST_ROUNDS


def test_a_target_that_is_not_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CompileError("this artefact was built for another machine", why="the processor lacks avx1024")

    monkeypatch.setattr(type(BACKENDS.get("reference")), "load", refuse)
    model = parse_model("model m(x: f32[1,2])\n  %y = relu(%x)\n  return y=%y")
    with pytest.raises(UsageError, match="latency on reference cannot be measured here") as caught:
        TargetStopwatch("reference", Workspace(threads=1)).compare(model, model)
    assert caught.value.why == "the processor lacks avx1024"
