"""Where it is known what images show, passes, sensitivity and comparisons are judged by the metric of the task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from small_tasks import SIDE, picture
from torch import Tensor, nn

import lvc
from lvc.compiler.cli import main
from lvc.compiler.cli.pipeline_options import open_data_set
from lvc.compiler.data.labelled import Truth
from lvc.compiler.driver import make_report, optimise
from lvc.compiler.ir.graph import calls, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.task_metric import TaskMetric
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model

PREPROCESS = f"resize={SIDE}x{SIDE},range=1"


class Colours(nn.Module):
    """Scores of nothing and of the three primary colours for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(4, 3).roll(1, 0)[:, :, None, None])
            self.conv.bias.copy_(torch.tensor([0.5, 0, 0, 0]))

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.conv(image)
        return found


class Spots(Colours):
    """The quarters of the image, with the colour that each has most of."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        half, whole = SIDE // 2, SIDE
        corners = [[0, 0, half, half], [half, 0, whole, half], [0, half, half, whole], [half, half, whole, whole]]
        means = nn.functional.avg_pool2d(self.conv(image)[:, 1:], half).reshape(3, 4)
        return {"boxes": torch.tensor(corners).float(), "scores": means.amax(0), "labels": means.argmax(0) + 1}


class Raw(Spots):
    """The same, as an SSD's raw head gives it."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        scores = nn.functional.avg_pool2d(self.conv(image), SIDE // 2).reshape(1, 4, 4).transpose(1, 2)
        return {"places": super().forward(image)["boxes"][None] + scores[..., :1] * 0, "chances": scores[..., :3]}


@dataclass(frozen=True, kw_only=True)
class TurnColours(Pass):
    """Take every colour for the next one."""

    name: ClassVar[str] = "turn-colours"
    effect: ClassVar[Effect] = Effect.LOSSY

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        (layer,) = calls(model.module.graph, torch.ops.aten.conv2d.default)
        weight = tensor(model.module, layer.args[1])
        assert weight is not None
        store(model.module, str(layer.args[1].target), weight.detach().roll(1, 0))  # type: ignore[union-attr]
        outcome.change(layer)
        return outcome


def model_of(module: nn.Module) -> Model:
    made = lvc.from_module(module.eval(), torch.rand(1, 3, SIDE, SIDE), name="net")
    made.preprocessing = PREPROCESS
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three coloured quarters, with boxes as YOLO has them, and with masks."""
    for kind in ("boxes/images", "boxes/labels", "pixels/images", "pixels/masks"):
        (tmp_path / kind).mkdir(parents=True)
    centres = {1: (0.25, 0.25), 2: (0.75, 0.25), 3: (0.25, 0.75)}
    for place in range(3):
        for kind in ("boxes", "pixels"):
            picture(tmp_path / kind / "images" / f"{place}.png", 40 + 8 * place, 64)
        lines = [f"{label} {x} {y} 0.5 0.5" for label, (x, y) in centres.items()]
        (tmp_path / "boxes/labels" / f"{place}.txt").write_text("\n".join(lines))
        height = 40 + 8 * place
        mask = np.zeros((height, 64), np.uint8)
        mask[: height // 2, :32], mask[: height // 2, 32:], mask[height // 2 :, :32] = 1, 2, 3
        Image.fromarray(mask).save(tmp_path / "pixels/masks" / f"{place}.png")
    return tmp_path


def judged(model: Model, data: Path, pipeline: Pipeline) -> Loss:
    used = Workspace(data={"judge": partial(open_data_set, str(data), model)}, threads=1)
    rewritten, steps = optimise(model, pipeline, used)
    loss: Loss = next(step.measured["loss"] for step in steps if "loss" in step.measured)
    table = make_report(model, rewritten, pipeline, "native", steps).pass_table()
    assert loss.metric in table[0]
    return loss


def test_segments_are_judged_by_intersections_over_unions(folder: Path) -> None:
    loss = judged(model_of(Colours()), folder / "pixels", Pipeline((TurnColours(),)))
    assert (loss.metric, loss.images) == ("mean IoU", 3)
    assert loss.score_as_loaded == pytest.approx(1.0, abs=2e-3)
    assert loss.score is not None
    assert loss.score < 0.4


def test_boxes_are_judged_by_average_precision(folder: Path) -> None:
    loss = judged(model_of(Spots()), folder / "boxes", Pipeline((TurnColours(),)))
    assert (loss.metric, loss.images) == ("AP", 3)
    assert loss.score_as_loaded is not None
    assert loss.score_as_loaded > 0.9
    assert loss.score is not None
    assert loss.score < 0.4


def test_a_raw_head_is_judged_with_what_the_pipeline_has_behind_it(folder: Path) -> None:
    steps = "ssd{relative=false},nms{score=0.3}"
    (folder / "boxes/labels/0.txt").write_text("0 0.25 0.25 0.5 0.5\n1 0.75 0.25 0.5 0.5")
    for place in (1, 2):
        (folder / f"boxes/labels/{place}.txt").write_text("0 0.25 0.25 0.5 0.5\n1 0.75 0.25 0.5 0.5")
    loss = judged(model_of(Raw()), folder / "boxes", Pipeline((TurnColours(),)).with_ends(steps))
    assert loss.metric == "AP"
    assert loss.score_as_loaded is not None
    assert loss.score_as_loaded > 0.9
    assert loss.score is not None
    assert loss.score < 0.6


def test_a_set_with_boxes_tells_no_class_and_other_tasks_have_no_metric_of_it(folder: Path) -> None:
    model = model_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4)))
    data = open_data_set(str(folder / "boxes"), model)
    assert [label for _, label in data] == [None] * 3
    truth = data.truth(1)  # type: ignore[attr-defined]
    assert isinstance(truth, Truth)
    assert TaskMetric.of(model, [[truth]]) is None
    assert TaskMetric.of(model_of(Colours()), [[truth]]) is None
    assert TaskMetric.of(model_of(Spots()), [[None]]) is None
    assert TaskMetric.of(model, [[3], [0]]) is not None
    assert TaskMetric.of(model, [[4], [0]]) is None


def test_comparisons_and_sensitivity_have_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of(Colours())
    turned, _ = optimise(model, Pipeline((TurnColours(),)))
    for name, one in (("a", model), ("b", turned)):
        write_model(one, folder / f"{name}.lvc")
    paths = [str(folder / "a.lvc"), str(folder / "b.lvc")]
    assert main(["compare", *paths, "--data", str(folder / "pixels"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metric"] == "mean IoU"
    assert told["scores"][0] == pytest.approx(1.0, abs=2e-3)
    assert told["scores"][1] < 0.4

    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 8, 1), Colours()

        def forward(self, image: Tensor) -> Tensor:
            hidden = self.first(image)
            made: Tensor = self.last(image + 0.05 * hidden[:, :3] + 0.05 * hidden[:, 3:6])
            return made

    write_model(model_of(Wider()), folder / "w.lvc")
    assert main(["sensitivity", str(folder / "w.lvc"), "--data", str(folder / "pixels"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
