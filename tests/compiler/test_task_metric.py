"""Where it is known what images show, passes, sensitivity and comparisons are judged by the metric of the task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_tasks import SIDE, picture
from torch import Tensor, nn

import lvc
from lvc.compiler.cli import main
from lvc.compiler.cli.pipeline_options import open_data_set
from lvc.compiler.data.labelled import Truth
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.driver import make_report, optimise
from lvc.compiler.errors import CheckError, UsageError
from lvc.compiler.ir.graph import calls, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.judge import Loss
from lvc.compiler.measure.comparison.loss_bound import LossBound
from lvc.compiler.measure.task_metric import TaskMetric
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.writing import write_model
from lvc.passes.analysis.channel_groups import channel_groups
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.loss import segmentation_loss

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


def coco_of(folder: Path) -> str:
    """The boxes of the same pictures in COCO's JSON."""
    images, objects = [], []
    for place in range(3):
        height = 40 + 8 * place
        images.append({"id": place, "file_name": f"{place}.png"})
        for label, (x, y) in {1: (0, 0), 2: (32, 0), 3: (0, height / 2)}.items():
            box = [x, y, 32, height / 2]
            objects.append({"id": len(objects) + 1, "image_id": place, "category_id": 10 * label, "bbox": box})
    names = {10: "red", 20: "green", 30: "blue"}
    categories = [{"id": key, "name": name} for key, name in names.items()]
    file = folder / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return f"{folder / 'boxes' / 'images'}:{file}"


NAMES = ("nothing", "red", "green", "blue")


def test_cocos_json_judges_as_yolos_files_do(folder: Path) -> None:
    model = model_of(Spots())
    model.labels = NAMES
    loss = judged(model, Path(coco_of(folder)), Pipeline((TurnColours(),)))
    assert (loss.metric, loss.images) == ("AP", 3)
    assert loss.score_as_loaded is not None
    assert loss.score_as_loaded > 0.9
    assert loss.score is not None
    assert loss.score < 0.4
    model.labels = None
    with pytest.raises(UsageError, match="those of the model have none") as caught:
        judged(model, Path(coco_of(folder)), Pipeline((TurnColours(),)))
    assert "--labels" in caught.value.help


def test_a_bound_of_percent_is_of_the_metric(folder: Path) -> None:
    model, turn = model_of(Colours()), Pipeline((TurnColours(),))
    data = {"judge": partial(open_data_set, str(folder / "pixels"), model)}
    optimise(model, turn, Workspace(data=data, threads=1), max_loss=LossBound.parse("90%"))
    with pytest.raises(CheckError, match="the mean IoU is") as caught:
        optimise(model, turn, Workspace(data=data, threads=1), max_loss=LossBound.parse("10%"))
    assert "mean IoU" in caught.value.why
    flat = {"judge": partial(open_data_set, str(folder / "pixels" / "images"), model)}
    with pytest.raises(UsageError, match="cannot be bounded by 10 %") as refused:
        optimise(model, turn, Workspace(data=flat, threads=1), max_loss=LossBound.parse("10%"))
    assert "'masks'" in refused.value.help
    raw = model_of(Raw())
    boxes = {"judge": partial(open_data_set, str(folder / "boxes"), raw)}
    with pytest.raises(UsageError, match="cannot be bounded by 10 %") as refused:
        optimise(raw, turn, Workspace(data=boxes, threads=1), max_loss=LossBound.parse("10%"))
    assert "--postprocess" in refused.value.help
    for place in range(3):
        (folder / f"boxes/labels/{place}.txt").write_text("0 0.25 0.25 0.5 0.5\n1 0.75 0.25 0.5 0.5")
    steps = "ssd{relative=false},nms{score=0.3}"
    with pytest.raises(CheckError, match="the AP is"):
        optimise(raw, turn.with_ends(steps), Workspace(data=boxes, threads=1), max_loss=LossBound.parse("10%"))


class Narrow(nn.Module):
    """Colours in front of which a layer has channels that can go."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), last

    def forward(self, image: Tensor) -> Any:
        return self.last(image + 0.05 * self.second(self.first(image).relu()))


def test_raw_heads_are_measured_behind_their_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide, turned = model_of(Narrow(Raw())), model_of(Narrow(Raw()))
    for name, one in (("w", wide), ("v", turned)):
        write_model(one, folder / f"{name}.lvc")
    steps = "ssd{relative=false},nms{score=0.01}"
    files = [str(folder / "w.lvc"), str(folder / "v.lvc")]
    (folder / "names.txt").write_text("red\ngreen\nblue\n")
    more = ["--data", coco_of(folder), "--labels", str(folder / "names.txt"), "--postprocess", steps, "--json"]
    assert main(["compare", *files, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metric"] == "AP"
    assert told["scores"][0] == told["scores"][1] > 0.3
    assert main(["sensitivity", files[0], *more]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = told["rows"]
    assert rows
    assert told["metric"] == "AP"
    assert main(["sensitivity", files[0], *more[:-1], "--plot", str(folder / "curves.svg")]) == 0
    assert "AP at -25%" in capsys.readouterr().out
    assert "AP, %" in (folder / "curves.svg").read_text()
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    plain = [*more[:1], str(folder / "boxes" / "images"), *more[4:]]
    assert main(["sensitivity", files[0], *plain]) == 2
    assert "nothing can be measured" in capsys.readouterr().err
    assert main(["sensitivity", files[0], *more[:-2], "yolox,nms"]) == 2
    assert "'yolox' does not fit the outputs" in capsys.readouterr().err


def test_criteria_take_the_loss_of_pixels(folder: Path) -> None:
    """The gradient of a model that segments is that of the cross entropy which PyTorch computes of the same masks."""
    model = model_of(Narrow(Colours()))
    data = Calibration.draw(model, open_data_set(str(folder / "pixels"), model), "calib")
    evidence = Evidence(model, channel_groups(model), data)
    labels = torch.cat(list(evidence.labels))
    assert (labels.shape, labels.dtype) == ((3, SIDE, SIDE), torch.uint8)
    assert labels[:, 3, 3].tolist() == [1] * 3
    assert labels[:, 3, -3].tolist() == [2] * 3
    torch.manual_seed(1)
    scores = torch.randn(3, 4, SIDE, SIDE)
    wanted = nn.functional.cross_entropy(scores, labels.long(), reduction="none").mean((1, 2)).sum()
    torch.testing.assert_close(segmentation_loss([scores], labels), wanted)
    marked = labels.clone()
    marked[0, :5] = 255
    kept = nn.functional.cross_entropy(scores[:1, :, 5:], labels[:1, 5:].long())
    rest = nn.functional.cross_entropy(scores[1:], labels[1:].long(), reduction="none").mean((1, 2)).sum()
    torch.testing.assert_close(segmentation_loss([scores], marked), kept + rest)
    for name in ("taylor", "fisher", "gradient", "obd"):
        used = Workspace(data={"calib": partial(open_data_set, str(folder / "pixels"), model)}, threads=1)
        pruned, _ = Pipeline.parse(f"prune-channels{{ratio=0.5 multiple=1 criterion={name}}}").run(model, used)
        assert pruned.parameters < model.parameters
    images = Calibration.draw(model, open_data_set(str(folder / "pixels" / "images"), model), "calib")
    with pytest.raises(UsageError, match="has no labels") as caught:
        _ = Evidence(model, channel_groups(model), images).labels
    assert "'masks'" in caught.value.help
    raw = model_of(Narrow(Raw()))
    boxes = Calibration.draw(raw, open_data_set(str(folder / "boxes"), raw), "calib")
    with pytest.raises(UsageError, match="neither classifies nor segments") as caught:
        _ = Evidence(raw, channel_groups(raw), boxes).labels
    assert "output-error" in caught.value.help


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["letterbox=40", "letterbox=24x60@9", "resize=30,crop=24x20", "resize=37x53", "resize=50,crop=9"]),
    st.integers(20, 90),
    st.integers(20, 90),
)
def test_masks_lie_in_the_input_as_the_picture_does(text: str, height: int, width: int) -> None:
    """A mask that holds rows, or columns, shows of each pixel of the input where it is from."""
    made = Preprocess.parse(f"{text},range=255")
    rows, columns = np.mgrid[:height, :width]
    found = made(np.stack([rows * 2, columns * 2, rows * 0 + 255], -1).astype(np.uint8))[0]
    placement, size = made.placement((height, width)), found.shape[1:]
    for plane, mask in zip(found[:2] / 2, (rows, columns), strict=True):
        spread = placement.spread(mask, size, 255)
        inside = (spread != 255) & (found[2] == 255)
        assert inside.any()
        assert ((spread == 255) == (found[2] != 255)).mean() > 0.85
        assert np.abs(spread - plane)[inside].mean() < 1.0 / min(1.0, *placement.scale)
