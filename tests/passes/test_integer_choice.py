"""Layers in integers under a budget of latency: the budget is kept, and what costs most stays in floating point."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from calibration_data import normal
from torch import nn

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph import arguments, calls, origin
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Verifier
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Race
from lvc.passes.quantisation.bit_choice import FLOAT, Choice, Choices
from lvc.passes.quantisation.integer_choice import INTEGER, until_fast
from lvc.passes.quantisation.rules import is_quantised

aten = torch.ops.aten
CHOICES: Choices = {
    name: [Choice(FLOAT, 1000, 0.0), Choice(INTEGER, 400, cost)]
    for name, cost in (("a", 5.0), ("b", 1.0), ("c", 2.0), ("d", 9.0))
}


@dataclasses.dataclass
class Clock:
    """Layers take a second each, in integers 0.4; each border between them takes some more."""

    border: float = 0.0
    name: str = "clock"
    channel_multiple: int = 1

    def compare(self, model: Model, with_model: Model) -> Race:
        ours, theirs = (sum(self.layers(m).values()) for m in (model, with_model))
        return Race(ours, theirs, ours / theirs)

    def layers(self, model: Model) -> dict[str, float]:
        seconds = {}
        integers = [is_quantised(arguments(layer)["weight"]) for layer in contractions(model)]
        for layer, is_integer in zip(contractions(model), integers, strict=True):
            seconds[origin(layer)] = 0.4 if is_integer else 1.0
        seconds[""] = self.border * sum(a != b for a, b in itertools.pairwise(integers))
        return seconds


def contractions(model: Model) -> list[torch.fx.Node]:
    return list(calls(model.module.graph, aten.conv2d.default, aten.linear.default))


@pytest.fixture(scope="module")
def net() -> Model:
    """Four layers, of which the second has one channel that dwarfs the others, so that 8 bits lose much."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AdaptiveAvgPool2d(1)
    )
    with torch.no_grad():
        layers[0].weight[0] *= 300
        layers[2].weight[:, 0] /= 300
    return from_module(nn.Sequential(layers, nn.Flatten(), nn.Linear(8, 5)), torch.zeros(1, 3, 10, 10))


def made(net: Model, options: str, clock: Clock | None = None, before: str = "") -> tuple[Model, Outcome]:
    pipeline = Pipeline.parse(f"{before}mixed-precision{{{options}}}")
    workspace = dataclasses.replace(normal(net), stopwatch=clock or Clock())
    model, steps = pipeline.run(net, workspace, [Verifier()])
    return model, steps[-1].outcome


@pytest.mark.parametrize("border", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.7, 0.8, 0.86])
def test_the_latency_is_kept(share: float, border: float, net: Model) -> None:
    clock = Clock(border)
    model, outcome = made(net, f"latency={share}", clock)
    found = clock.compare(model, net).share
    assert found <= share
    assert f"{found:.3f} of today's latency on clock is left" in outcome.notes[0]
    chosen = {row[0]: row[4] for row in outcome.tables[0].rows}
    integers = {origin(n): is_quantised(arguments(n)["weight"]) for n in contractions(model)}
    assert chosen == {name: "integers" if is_integer else "float" for name, is_integer in integers.items()}
    assert 0 < sum(integers.values()) < 4


def test_what_hurts_stays_in_floating_point(net: Model) -> None:
    model, outcome = made(net, "latency=0.6")
    costs = {row[0]: row[3] for row in outcome.tables[0].rows}
    assert max(costs, key=costs.__getitem__) == "0.2"
    assert [n.name for n in contractions(model) if not is_quantised(arguments(n)["weight"])] == ["conv2d_1"]


def test_what_was_placed_can_be_calibrated(net: Model) -> None:
    model, _ = made(net, "latency=0.7 bits=7")
    calibrated, (step,) = Pipeline.parse("calibrate").run(model, normal(net))
    bounds = {arguments(n)["quant_max"] for n in calls(calibrated.module.graph) if "per_channel" in str(n.target)}
    assert bounds == {63}
    assert float(step.outcome.notes[0].split("': ")[1].split(" dB")[0]) > 30


def test_the_cheapest_layers_go_first_and_a_wrong_sum_is_mended() -> None:
    measured: list[int] = []

    def measure(bits: dict[str, int]) -> float:
        integers = sum(number == INTEGER for number in bits.values())
        measured.append(integers)
        return 1 - 0.1 * integers  # where the seconds of the layers promise 0.15 each

    found = until_fast(CHOICES, 4000, 0.8, measure)
    assert [name for name, bits in found.point.bits.items() if bits == INTEGER] == ["b", "c"]
    assert (found.measured, found.estimated) == (pytest.approx(0.8), pytest.approx(0.7))
    assert measured[0] == 4
    with pytest.raises(UsageError, match=r"latency=0\.5 cannot be reached: at least 0\.600 of today's latency"):
        until_fast(CHOICES, 4000, 0.5, measure)


def test_layers_that_gain_nothing_stay() -> None:
    slower = {**CHOICES, "e": [Choice(FLOAT, 100, 0.0), Choice(INTEGER, 200, 0.0)]}
    found = until_fast(slower, 4100, 0.5, lambda _: 0.4)
    assert found.point.bits["e"] == FLOAT


@pytest.mark.parametrize(
    ("options", "before", "message"),
    [
        ("latency=0.5 bytes=0.5", "", "bytes and latency are both given"),
        ("latency=1", "", "latency must be a share"),
        ("latency=0.5 bits=2", "", "bits must be some of 8, 7, 4"),
        ("latency=0.5", "insert-fake-quant,", "some stands already"),
        ("latency=0.5 only=nothing", "", "matches nothing"),
        ("latency=0.1", "", r"latency=0\.1 cannot be reached"),
    ],
)
def test_misuse(options: str, before: str, message: str, net: Model) -> None:
    with pytest.raises(UsageError, match=message):
        made(net, options, before=before)


def test_without_a_target(net: Model) -> None:
    with pytest.raises(UsageError, match="no target to measure"):
        Pipeline.parse("mixed-precision{latency=0.5}").run(net, normal(net))
