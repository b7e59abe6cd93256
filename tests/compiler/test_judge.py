"""What passes cost is judged against the model as it was loaded, on images that they did not learn from."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from lvc.compiler.cli import main
from lvc.compiler.driver import compile_and_report, make_report, optimise
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.graph import calls, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module, load
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.comparison.loss_bound import LossBound
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.pipeline import Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model


@dataclass(frozen=True)
class Images:
    """Seeded normal images, with labels from 0 to 3 in turn if they are wanted."""

    shape: tuple[int, ...]
    count: int
    labelled: bool = False
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        random = np.random.default_rng(self.seed)
        for place in range(self.count):
            yield random.standard_normal((1, *self.shape)).astype(np.float32), place % 4 if self.labelled else None


@dataclass(frozen=True, kw_only=True)
class ScaleWeights(Pass):
    """Multiply every weight of the last layer."""

    name: ClassVar[str] = "scale-weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    by: float = option(1.0, "the factor")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        *_, layer = calls(model.module.graph, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
        weight = tensor(model.module, layer.args[1])
        assert weight is not None
        if self.by != 1:
            store(model.module, str(layer.args[1].target), weight.detach() * self.by)  # type: ignore[union-attr]
            outcome.change(layer)
        return outcome


class Classifier(nn.Module):
    """Scores of four classes, steep enough that probabilities saturate."""

    def __init__(self, closing: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 4, bias=False)
        self.closing = closing or nn.Identity()
        nn.init.normal_(self.layer.weight, std=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.closing(self.layer(x.flatten(1)))  # type: ignore[no-any-return]


def classifier(closing: nn.Module | None = None, batch: int = 3) -> Model:
    return from_module(Classifier(closing).eval(), torch.zeros(batch, 3, 2, 2))


def workspace(count: int = 20, *, labelled: bool = False) -> Workspace:
    return Workspace(data={"calib": lambda: Images((3, 2, 2), count, labelled)}, threads=1)


def losses(model: Model, used: Workspace, *factors: float) -> list[Loss]:
    _, steps = optimise(model, Pipeline(tuple(ScaleWeights(by=factor) for factor in factors)), used)
    return [step.measured["loss"] for step in steps]


def decibels(factor: float) -> float:
    return -20 * math.log10(abs(1 - factor))


def test_each_pass_is_judged_alone_and_against_the_model_as_loaded() -> None:
    first, second = losses(classifier(), workspace(), 1.1, 0.5)
    assert first.worst.sqnr == first.sqnr_alone == pytest.approx(decibels(1.1), abs=1e-3)
    assert second.sqnr_alone == pytest.approx(decibels(0.5), abs=1e-3)
    assert second.worst.sqnr == pytest.approx(decibels(0.55), abs=1e-3)
    assert second.worst.agreement == 1.0
    assert (second.images, second.source) == (4, "held out from 'calib'")


@dataclass(frozen=True, kw_only=True)
class ScaleAround(ScaleWeights):
    """Multiply every weight of the last layer, and let another pass do so too."""

    name: ClassVar[str] = "scale-around"

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = super().apply(model, workspace)
        Pipeline((ScaleWeights(by=0.5),)).run_inside(model, workspace)
        return outcome


def test_a_pass_that_a_pass_runs_is_judged_alone_too() -> None:
    passes = (ScaleWeights(by=1.1), ScaleAround(by=3.0), ScaleWeights(by=0.8))
    _, steps = optimise(classifier(), Pipeline(passes), workspace())
    _, outer, last = (step.measured["loss"] for step in steps)
    inner = steps[1].inner[0].measured["loss"]
    assert inner.sqnr_alone == pytest.approx(decibels(0.5), abs=1e-3)
    assert outer.sqnr_alone == pytest.approx(decibels(1.5), abs=1e-3)
    assert inner.worst.sqnr == outer.worst.sqnr == pytest.approx(decibels(1.65), abs=1e-3)
    assert last.sqnr_alone == pytest.approx(decibels(0.8), abs=1e-3)


def test_images_for_judging_alone() -> None:
    used = Workspace(data={"calib": list, "judge": lambda: Images((3, 2, 2), 7)}, threads=1)
    (loss,) = losses(classifier(), used, -1.0)
    assert (loss.images, loss.source) == (7, "of 'judge'")
    assert loss.worst.agreement == 0.0


def test_few_images_are_said_to_be_those_that_passes_were_fitted_to() -> None:
    (loss,) = losses(classifier(), workspace(6), 0.9)
    assert (loss.images, loss.source) == (6, "of 'calib', to which passes were fitted")


def test_the_share_of_right_first_choices() -> None:
    model = classifier(batch=1)
    judging = list(workspace(50, labelled=True).judging_images().data)
    right = [int(model(image)[0].argmax()) == label for image, label in judging]
    opposite = [int(model(image)[0].argmin()) == label for image, label in judging]
    (loss,) = losses(model, workspace(50, labelled=True), -1.0)
    assert 0 < sum(right) != sum(opposite)
    assert loss.score_as_loaded == pytest.approx(sum(right) / 10)
    assert loss.score == pytest.approx(sum(opposite) / 10)


@pytest.mark.parametrize("closing", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_scores_are_compared_in_front_of_the_function_that_closes_the_model(closing: nn.Module) -> None:
    plain, closed = (losses(classifier(found), workspace(), 1.1, 0.5)[-1] for found in (None, closing))
    assert closed == plain


def test_scores_of_several_crops_are_not_compared_with_the_class_of_their_image() -> None:
    crops = nn.Sequential(nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(4, 4))
    model = from_module(crops, torch.zeros(1, 3, 2, 2))
    (loss,) = losses(model, workspace(labelled=True), 1.1)
    assert loss.score is None
    assert loss.worst.sqnr == pytest.approx(decibels(1.1), abs=3)


def test_a_pass_that_is_not_lossy_or_did_nothing_has_no_loss() -> None:
    pipeline = Pipeline.parse("eliminate-dead") + Pipeline((ScaleWeights(),))
    _, (exact, idle) = optimise(classifier(), pipeline, workspace())
    assert "loss" not in exact.measured
    assert "loss" not in idle.measured


def report_of(*factors: float, data: bool = True) -> tuple[list[Step], list[str], tuple[str, ...]]:
    model, pipeline = classifier(), Pipeline(tuple(ScaleWeights(by=factor) for factor in factors))
    rewritten, steps = optimise(model, pipeline, workspace() if data else Workspace())
    report = make_report(model, rewritten, pipeline, "", steps)
    json.loads(json.dumps(report.to_json(), allow_nan=False))
    return steps, report.note_lines(), report.pass_table()[0]


def test_the_report_has_the_loss_of_each_and_of_all() -> None:
    _, lines, headers = report_of(1.1, 0.7)
    assert headers == ("pass", "changed", "skipped", "time", "alone", "in all", "agree")
    assert lines == [
        "in all: output 'output': 12.8 dB, 100.00 % of the first choices agree over 4 images held out from 'calib', "
        "against the model as loaded",
        "in all: scale-weights lost most of it: 10.5 dB alone",
    ]


def test_a_model_that_lost_everything_is_called_collapsed() -> None:
    _, lines, _ = report_of(1.1, -1.0)
    assert lines[0].startswith("in all: COLLAPSED: 'output': -6.4 dB, 0.00 % of the first choices agree; in 100 %")
    assert "try the pipeline without this pass" in lines[0]


def test_without_images_the_report_says_that_nothing_was_judged() -> None:
    _, lines, headers = report_of(1.1, data=False)
    assert lines == ["in all: what scale-weights cost was not judged, without images: --data judge=PATH"]
    assert headers == ("pass", "changed", "skipped", "time")


class Pair(nn.Module):
    """A model of two inputs, which no data set feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(left + right)  # type: ignore[no-any-return]


def test_a_model_of_two_inputs_is_not_judged_and_says_so() -> None:
    """Images are of no use to it, and a pipeline that needs none runs all the same."""
    model = from_module(Pair().eval(), torch.zeros(1, 4), torch.ones(1, 4))
    pipeline = Pipeline((ScaleWeights(by=0.9),))
    _, report = compile_and_report(model, pipeline, "reference", workspace=workspace())
    assert report.losses == ("what scale-weights cost was not judged, images feed a model of one input with a batch",)
    with pytest.raises(UsageError, match="a data set feeds a model of one input, not 2"):
        optimise(model, pipeline, workspace(), max_loss=LossBound.parse("20dB"))


@pytest.mark.parametrize("text", ["20dB", "20 db", "19.9dB", "0.5%", " 0 % "])
def test_bounds_that_are_met(text: str) -> None:
    optimise(classifier(), Pipeline((ScaleWeights(by=1.1 - 1e-6),)), workspace(), max_loss=LossBound.parse(text))


@pytest.mark.parametrize(
    ("text", "factor", "message"),
    [
        ("20dB", 0.7, "output 'output' is at 10.7 dB, and 20 dB are wanted"),
        ("1%", -1.0, "another first choice on 100.00 % of the images, not 1 %"),
    ],
)
def test_bounds_that_are_broken(text: str, factor: float, message: str) -> None:
    pipeline = Pipeline((ScaleWeights(by=1.01), ScaleWeights(by=factor)))
    with pytest.raises(CheckError, match=message) as caught:
        compile_and_report(classifier(), pipeline, "reference", workspace=workspace(), max_loss=LossBound.parse(text))
    assert caught.value.where == "4 images held out from 'calib'"
    assert caught.value.why.splitlines()[0] == "scale-weights: 40.0 dB alone, 40.0 dB in all"


@pytest.mark.parametrize("text", ["20", "dB", "-3dB", "100%", "nan%", "1e3dB"])
def test_bounds_that_say_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="--max-loss"):
        LossBound.parse(text)


def test_bounds_that_cannot_be_judged() -> None:
    pipeline, bound = Pipeline((ScaleWeights(by=0.9),)), LossBound.parse("1%")
    with pytest.raises(UsageError, match="--max-loss needs images to judge on"):
        optimise(classifier(), pipeline, Workspace(), max_loss=bound)
    image = from_module(nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 2, 2))
    with pytest.raises(UsageError, match="does not tell what it shows"):
        optimise(image, pipeline, workspace(), max_loss=bound)
    image = from_module(nn.Conv2d(3, 3, 1).eval(), torch.zeros(1, 3, 2, 2))
    with pytest.raises(UsageError, match="no output of the model"):
        optimise(image, pipeline, workspace(), max_loss=bound)
    optimise(classifier(), Pipeline.parse("O2"), Workspace(), max_loss=bound)


@pytest.fixture
def segmenter(tmp_path: Path) -> tuple[str, str]:
    """A network that gives a score for each pixel, in a file, and the arrays that it is calibrated on."""
    torch.manual_seed(0)
    widths = (3, 16, 24, 24, 16)
    layers: list[nn.Module] = []
    for read, made in itertools.pairwise(widths):
        layers += [nn.Conv2d(read, made, 3, padding=1, bias=False), nn.ReLU()]
    model = from_module(nn.Sequential(*layers, nn.Conv2d(16, 3, 1, bias=False)).eval(), torch.zeros(1, 3, 16, 16))
    write_model(model, tmp_path / "segmenter.onnx")
    x = np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=x)
    return str(tmp_path / "segmenter.onnx"), str(tmp_path / "images.npz")


def test_what_pruning_lost_is_seen_behind_the_passes_after_it(segmenter: tuple[str, str], tmp_path: Path) -> None:
    """Quantisation alone loses little of what pruning left; the model as loaded is further away."""
    source, images = segmenter
    report, small = tmp_path / "report.json", tmp_path / "small.lvc"
    arguments = ["opt", source, "-p", "prune-channels{macs=0.6},int8-fast", "--data", f"calib={images}"]
    assert main([*arguments, "-o", str(small), "--report", str(report)]) == 0
    judged = [item["loss"] for item in json.loads(report.read_text())["passes"] if item["loss"]]
    used = Workspace(data={"calib": lambda: [(image[None], None) for image in np.load(images)["x"]]})
    kept = [image for image, _ in used.judging_images().data]
    wanted, found = (
        np.concatenate([model(image)[0] for image in kept]).astype(float) for model in map(load, (source, str(small)))
    )
    true = 10 * math.log10((wanted**2).sum() / ((found - wanted) ** 2).sum())
    assert judged[-1]["in_all"][0]["sqnr"] == pytest.approx(true, abs=0.02)
    assert judged[-1]["alone"][0]["sqnr"] > true + 15
    assert len(judged) > 2


def test_the_command_refuses_what_lost_too_much(
    segmenter: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, images = segmenter
    made = tmp_path / "small.onnx"
    arguments = ["opt", source, "-p", "prune-channels{macs=0.3}", "--data", f"calib={images}", "-o", str(made)]
    assert main([*arguments, "--max-loss", "30dB"]) == 3
    assert "30 dB are wanted" in capsys.readouterr().err
    assert not made.exists()
    assert main([*arguments, "--max-loss", "1dB"]) == 0
    assert made.exists()
