"""Pruning and factoring under one budget: each takes what it can save best, and what was tried is told."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from calibration_data import normal
from clockwork import Watch
from torch import nn

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.observers import Drift, Verifier
from lvc.compiler.pipeline.pipeline import Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace


class Spare(nn.Module):
    """Channels that nothing reads much and that no factor could save, and a layer of low rank all of whose channels
    count."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.thin, self.head = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 6, 1)
        self.thin.weight.data = torch.einsum("or,rihw->oihw", torch.randn(16, 2), torch.randn(2, 16, 3, 3)) / 12
        self.wide.weight.data[8:] *= 1e-3
        self.wide.bias.data[8:] *= 1e-3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.thin(torch.relu(self.wide(x))))).flatten(1)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return from_module(Spare().eval(), torch.randn(1, 4, 7, 7))


def run(options: str, model: Model, used: Workspace) -> tuple[Model, Step]:
    pipeline = Pipeline.parse(f"prune-and-factor{{{options}}}")
    made, (step,) = pipeline.run(model, used, [Verifier(), Drift()])
    return made, step


def tried(step: Step) -> dict[str, float]:
    """The signal to noise of each division of the budget that was tried."""
    (note,) = (note for note in step.outcome.notes if note.startswith("outputs by division"))
    found = re.findall(r"(factors alone|channels alone|channels to [\d.]+x, then factors) (-?[\d.]+) dB", note)
    return {name: float(value) for name, value in found}


def left(made: Model, model: Model, counted: str = "macs") -> float:
    return float(getattr(totals(layers(made)), counted) / getattr(totals(layers(model)), counted))


def test_both_together_keep_more_than_each_alone(model: Model) -> None:
    used = normal(model, 40)
    made, step = run("macs=0.3", model, used)
    assert 0.27 < left(made, model) <= 0.3
    found = tried(step)
    kept = step.outcome.notes[-1].partition(";")[0]
    assert found[kept] == max(found.values()) > found["factors alone"]
    assert [inner.item.name for inner in step.inner] == ["prune-channels"] * (len(step.inner) - 1) + ["factor-low-rank"]
    assert step.outcome.changed
    alone = Pipeline.parse("prune-channels{macs=0.3}").run(model, used)[0]
    images = torch.stack([torch.from_numpy(image) for image, _ in normal(model, 200).data["calib"]()])

    def error(one: Model) -> float:
        pairs = [(one(image)[0], model(image)[0]) for image in images]
        return float(sum(((a - b) ** 2).sum() for a, b in pairs))

    assert error(made) < 0.7 * error(alone)


def test_bytes_come_down_to_the_budget(model: Model) -> None:
    made, _ = run("bytes=0.35", model, normal(model, 12))
    assert 0.3 < left(made, model, "weight_bytes") <= 0.35


def test_latency_comes_down_to_the_budget(model: Model) -> None:
    used = Workspace(data=normal(model, 12).data, threads=1, stopwatch=Watch())
    made, _ = run("latency=0.5", model, used)
    assert 0.4 < Watch().compare(made, model).share <= 0.52


def test_without_data_the_first_division_that_reaches_the_budget_is_taken(model: Model) -> None:
    made, step = run("macs=0.5", model, Workspace(threads=1))
    assert left(made, model) <= 0.5
    assert any(note.startswith("by weights alone") for note in step.outcome.notes)
    assert step.outcome.notes[-1].startswith("factors alone; MACs ")
    assert [inner.item.name for inner in step.inner] == ["factor-low-rank"]


class Depthwise(nn.Module):
    """Layers that cannot be written as less."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def test_where_nothing_can_be_factored_channels_go() -> None:
    torch.manual_seed(0)
    model = from_module(Depthwise().eval(), torch.randn(1, 2, 6, 6))
    made, step = run("macs=0.6", model, normal(model, 12))
    assert left(made, model) <= 0.6
    assert step.outcome.notes[-1].startswith("channels alone; MACs ")


def test_where_no_channels_may_go_layers_are_factored() -> None:
    torch.manual_seed(0)
    model = from_module(nn.Sequential(nn.Linear(12, 12)).eval(), torch.randn(1, 12))
    made, step = run("macs=0.7", model, normal(model, 12))
    assert left(made, model) <= 0.7
    assert "no channels may be removed; --explain says why" in step.outcome.notes
    with pytest.raises(UsageError, match=r"at least 0\.167 of today's MACs stay"):
        run("macs=0.05", model, normal(model, 12))


def test_where_neither_can_be_done_it_is_said() -> None:
    model = from_module(nn.Sequential(nn.Conv2d(4, 4, 1, groups=4)).eval(), torch.randn(1, 4, 6, 6))
    with pytest.raises(
        UsageError, match=r"the budget macs=0\.5 cannot be reached: at least 1\.000 of today's MACs stay"
    ):
        run("macs=0.5", model, normal(model, 12))


def test_pruning_goes_on_from_its_checkpoints(model: Model, tmp_path: Path) -> None:
    used = dataclasses.replace(normal(model, 12), checkpoints=tmp_path)

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    first, _ = run("macs=0.3", model, used)
    files = written()
    second, _ = run("macs=0.3", model, used)
    assert second.to_text() == first.to_text()
    assert written() == files != {}
