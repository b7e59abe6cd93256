"""Average precision and mean intersection over union: reading labels, scoring, and the command."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from coco_score import Boxes, _average_precisions
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_tasks import NAMES, Colours, Spots, artefact, picture

from lvc.compiler.cli import main
from lvc.compiler.data.coco import CocoFiles
from lvc.compiler.data.labelled import BoxData, LabelledBoxes, open_boxes
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.average_precision import average_precision, class_table
from lvc.compiler.measure.detections import Detections
from lvc.compiler.measure.mean_iou import Confusion

needs_pycocotools = pytest.mark.skipif(find_spec("pycocotools") is None, reason="pycocotools is not installed")


def folder(path: Path, kind: str = "labels") -> Path:
    """Two pictures, and an empty folder for what is known of them."""
    for name in ("images", kind):
        (path / name).mkdir(parents=True)
    picture(path / "images" / "a.png")
    picture(path / "images" / "b.png", 64, 40)
    return path


def labelled(path: Path) -> Path:
    """The same with the objects that `Spots` finds in them: red of both, green and blue of the first alone."""
    data = folder(path)
    (data / "labels" / "a.txt").write_text("1 0.25 0.4 0.5 0.8\n2 0.75 0.4 0.5 0.8\n\n3 0.25 0.9 0.5 0.2\n")
    (data / "labels" / "b.txt").write_text("1 0.4 0.25 0.8 0.5\n")
    return data


def coco(data: Path, **changes: object) -> Path:
    """The same in COCO's JSON, with categories that are neither in order nor dense."""
    told: dict[str, object] = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}],
        "categories": [{"id": 40, "name": "blue"}, {"id": 2, "name": "red"}, {"id": 9, "name": "green"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 2, "bbox": [0, 0, 32, 32], "area": 1000.0, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 9, "bbox": [32, 0, 32, 32]},
            {"id": 3, "image_id": 3, "category_id": 40, "bbox": [0, 32, 32, 8]},
            {"id": 4, "image_id": 7, "category_id": 2, "bbox": [0, 0, 32, 32]},
        ],
        **changes,
    }
    file = data / "boxes.json"
    file.write_text(json.dumps(told))
    return file


def test_yolo_files_are_boxes_in_pixels(tmp_path: Path) -> None:
    data = open_boxes(str(labelled(tmp_path)))
    assert [path.name for path in data.pictures] == ["a.png", "b.png"]
    np.testing.assert_allclose(data.objects[0].boxes, [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 40]])
    assert data.objects[0].labels.tolist() == [1, 2, 3]
    np.testing.assert_allclose(data.objects[1].boxes, [[0, 0, 32, 32]])
    (tmp_path / "labels" / "b.txt").unlink()
    assert len(open_boxes(str(tmp_path)).objects[1].labels) == 0


def test_coco_json_is_the_same(tmp_path: Path) -> None:
    data = labelled(tmp_path)
    found = CocoFiles(data / "images", coco(data)).read()
    assert found.names == ("red", "green", "blue")
    assert [path.name for path in found.pictures] == ["a.png", "b.png"]
    for ours, theirs in zip(found.objects, open_boxes(str(data)).objects, strict=True):
        np.testing.assert_allclose(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.labels, theirs.labels - 1)
    assert found.objects[0].areas.tolist() == [1000, 1024, 256]


@pytest.mark.parametrize(
    "line", ["1 0.5 0.5 0.1", "x 0 0 1 1", "1.5 0 0 1 1", "-1 0 0 1 1", "1 0 0 -1 1", "1 0 nan 1 1"]
)
def test_lines_that_are_no_boxes(tmp_path: Path, line: str) -> None:
    (labelled(tmp_path) / "labels" / "a.txt").write_text(f"1 0 0 1 1\n{line}\n")
    with pytest.raises(UsageError, match="a line holds no box") as caught:
        open_boxes(str(tmp_path))
    assert caught.value.where.endswith("a.txt, line 2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 3, "file_name": "../a.png"}], "annotations": []}, "names no picture"),
        ({"images": [{"id": 3, "file_name": "c.png"}], "annotations": []}, "there is no picture"),
        ({"annotations": [{"id": 1, "image_id": 3, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "not COCO's JSON"),
        ({"annotations": [{"id": 1, "image_id": 3, "category_id": 2, "bbox": [0, 0, -1, 1]}]}, "not COCO's JSON"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [0, 0, 1, 1]}]}, "not COCO's JSON"),
        ({"annotations": 3}, "not COCO's JSON"),
        ({"images": [], "annotations": []}, "names no pictures"),
    ],
)
def test_json_that_is_not_cocos(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    data = labelled(tmp_path)
    with pytest.raises(UsageError, match=message):
        CocoFiles(data / "images", coco(data, **changes)).read()


def test_classes_are_met_by_name() -> None:
    assert class_table(("nothing", "blue", "red"), ("red", "green", "blue"), 4) == [-1, 2, 0, -1, -1]
    assert class_table((), ("red",), 2) == class_table(("a",), (), 2) == [0, 1, 2]
    with pytest.raises(UsageError, match="no class in common"):
        class_table(("a",), ("b",), 0)


@needs_pycocotools
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_average_precision_is_that_of_the_formula(seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted, found = [], []
    for _ in range(3):
        low = random.uniform(0, 60, (random.integers(1, 6), 2))
        boxes = np.hstack([low, low + random.uniform(10, 40, low.shape)])
        labels = random.integers(0, 3, len(boxes))
        wanted.append((boxes, labels))
        moved = np.vstack([boxes + random.normal(0, 2, boxes.shape), boxes[::2] + random.normal(0, 4, (1, 4))])
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        found.append((moved, np.hstack([labels, random.integers(0, 3, len(boxes[::2]))]), random.random(len(moved))))
    data = BoxData((Path("x"),) * 3, tuple(LabelledBoxes.of(*one) for one in wanted))
    order = [np.argsort(-scores) for *_, scores in found]
    sorted_ones = [tuple(part[at] for part in one) for one, at in zip(found, order, strict=True)]
    score = average_precision([Detections(b, s, k) for b, k, s in sorted_ones], data, range(3))
    classes = np.unique(np.concatenate([labels for _, labels in wanted]))
    ours = [Boxes(b, k, s) for b, k, s in sorted_ones]
    theirs = [Boxes(b, k, np.ones(len(k))) for b, k in wanted]
    each = np.array([_average_precisions(ours, theirs, kind) for kind in classes])
    assert score.ap == pytest.approx(each.mean(), abs=1e-9)
    assert score.ap50 == pytest.approx(each[:, 0].mean(), abs=1e-9)
    assert score.objects == sum(len(labels) for _, labels in wanted)


@needs_pycocotools
def test_nothing_found_is_a_precision_of_zero() -> None:
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    data = BoxData((Path("x"),), (LabelledBoxes.of([(0, 0, 9, 9)], [0]),))
    assert average_precision([nothing], data, []).ap == 0
    stray = Detections(np.array([[0, 0, 9, 9.0]]), np.ones(1), np.array([5]))
    assert average_precision([stray], data, [0]).ap == 0
    with pytest.raises(UsageError, match="have no objects"):
        average_precision([nothing], BoxData((Path("x"),), (LabelledBoxes.of([], []),)), [])


@needs_pycocotools
def test_the_command_measures_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = labelled(tmp_path / "data"), artefact(Spots(), tmp_path / "spots.lvc")
    assert main(["eval", model, "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 2
    assert 0.3 < found["ap"] <= found["ap50"] <= 1
    assert main(["eval", model, "--data", str(data / "images"), "--annotations", str(coco(data)), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["ap"] == pytest.approx(found["ap"])
    assert main(["eval", model, "--data", str(data), "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "AP50" in shown
    assert shown.split()[-1] == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{data}/images"], "holds no pictures with labels"),
        (["--data", "{data}", "--annotations", "{data}/none.json"], "cannot read"),
        (["--data", "{data}", "--against", "{model}"], "--against compares first choices"),
        (["--data", "{data}", "--task", "segment"], "the model does not segment"),
    ],
)
@needs_pycocotools
def test_what_cannot_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    data, model = labelled(tmp_path / "data"), artefact(Spots(), tmp_path / "spots.lvc")
    assert main(["eval", model, *(text.format(data=data, model=model) for text in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_without_pycocotools_the_error_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    data, model = labelled(tmp_path / "data"), artefact(Spots(), tmp_path / "spots.lvc")
    assert main(["eval", model, "--data", str(data)]) == 2
    assert "pip install 'lvc[evaluation]'" in capsys.readouterr().err


def test_intersections_over_unions() -> None:
    confusion = Confusion(4)
    confusion.add(np.array([[0, 1, 1, -1]]), np.array([[0, 1, 2, 2]]), "a")
    confusion.add(np.array([[1, 1]]), np.array([[1, 255]]), "b")
    assert confusion.by_class == {0: 1.0, 1: 2 / 3, 2: 0.0}
    assert confusion.mean == pytest.approx((1 + 2 / 3) / 3)
    assert (confusion.right, confusion.pixels, confusion.images) == (0.75, 4, 2)
    with pytest.raises(UsageError, match="a pixel has class 4, and the model knows 4 classes"):
        confusion.add(np.zeros((1, 1), int), np.full((1, 1), 4), "a")
    with pytest.raises(UsageError, match="another size"):
        confusion.add(np.zeros((1, 1), int), np.zeros((1, 2), int), "a")


def test_the_command_measures_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = folder(tmp_path / "data", "masks"), artefact(Colours(), tmp_path / "colours.lvc")
    for name in ("a", "b"):
        pixels = np.asarray(Image.open(data / "images" / f"{name}.png"))
        mask = np.where(pixels.max(2) > 100, pixels.argmax(2) + 1, 0).astype(np.uint8)
        mask[0, 0] = 255
        Image.fromarray(mask).save(data / "masks" / f"{name}.png")
    assert main(["eval", model, "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 2
    assert found["mean_iou"] > 0.9
    assert list(found["iou"]) == list(NAMES)
    Image.fromarray(pixels).save(data / "masks" / "b.png")
    assert main(["eval", model, "--data", str(data)]) == 2
    assert "the mask holds colours" in capsys.readouterr().err
    (data / "masks" / "b.png").unlink()
    assert main(["eval", model, "--data", str(data)]) == 2
    assert "there is no mask" in capsys.readouterr().err


@pytest.mark.slow
@needs_pycocotools
def test_yolox_with_its_boxes_compiled_in_keeps_its_average_precision(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "yolox.lvc")
    steps = ["--postprocess", "yolox,nms{score=0.001 candidates=1000}", "--labels", "coco"]
    prepare = ["--preprocess", "letterbox=416@114,layout=bgr,range=255"]
    assert main(["compile", str(assets / "onnx" / "yolox_nano.onnx"), *steps, *prepare, "-o", target]) == 0
    capsys.readouterr()
    assert main(["eval", target, "--data", str(assets / "coco"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ap"] == pytest.approx(0.333, abs=0.002)
