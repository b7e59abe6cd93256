"""What a model is for: told, guessed from its outputs, and stored with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvc.compiler.data.labels import read_labels
from lvc.compiler.errors import UsageError
from lvc.compiler.ir import serialise
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.ir.task import check_task, detection_outputs, task_of
from lvc.compiler.load.onnx_importer import from_onnx
from lvc.compiler.writing import write_model

IMAGE = "x: f32[2,3,32,48]"


def values(text: str) -> tuple[Value, ...]:
    pairs = (part.split(": ") for part in text.split("; "))
    return tuple(Value(name, TensorSpec.parse(spec)) for name, spec in pairs)


@pytest.mark.parametrize(
    ("outputs", "task"),
    [
        ("y: f32[2,10]", "classify"),
        ("y: f32[2,10,1,1]", "classify"),
        ("y: f32[1,10]", ""),
        ("y: f32[2,10]; z: f32[2,10]", ""),
        ("boxes: f32[9,4]; labels: i64[9]; scores: f32[9]", "detect"),
        ("a_boxes_0: f32[9,4]; a_scores_0: f32[9]; a_labels_0: i32[9]; masks: f32[9,1,32,48]", "detect"),
        ("boxes: f32[9,4]; scores: f32[9]; labels: f32[9]", ""),
        ("boxes: f32[9,4]; scores: f32[8]; labels: i64[9]", ""),
        ("boxes: f32[1,9,4]; scores: f32[1,9,80]", ""),
        ("out: f32[2,21,32,48]; aux: f32[2,21,32,48]", "segment"),
        ("out: f32[2,3,32,48]", ""),
        ("out: f32[2,21,16,24]", ""),
    ],
)
def test_what_is_sure_is_guessed(outputs: str, task: str) -> None:
    assert task_of(values(IMAGE), values(outputs)) == task
    if task:
        assert check_task(task, values(IMAGE), values(outputs)) == task


def test_maps_of_features_are_no_segments() -> None:
    assert task_of(values("x: f32[2,8,32,48]"), values("y: f32[2,21,32,48]")) == ""
    assert task_of(values("x: u8[2,32,48,3]"), values("y: f32[2,21,32,48]")) == "segment"


@pytest.mark.parametrize(
    ("task", "outputs"), [("classify", "y: f32[2,3,4]"), ("detect", "y: f32[1,9,85]"), ("segment", "y: f32[2,10,1,1]")]
)
def test_what_the_outputs_cannot_be_is_refused(task: str, outputs: str) -> None:
    with pytest.raises(UsageError, match=f"does not {task}") as caught:
        check_task(task, values(IMAGE), values(outputs))
    assert outputs in caught.value.why
    with pytest.raises(UsageError, match="there is no task 'deteckt'") as caught:
        check_task("deteckt", values(IMAGE), values(outputs))
    assert "did you mean 'detect'" in caught.value.help


def test_each_image_has_boxes_of_its_own() -> None:
    found = detection_outputs(values(
        "output_0_boxes: f32[9,4]; output_0_scores: f32[9]; output_0_labels: i64[9]; "
        "output_1_labels: i64[9]; output_1_boxes: f32[9,4]; output_1_scores: f32[9]"
    ))  # fmt: skip
    assert [(item.boxes, item.scores, item.labels) for item in found] == [(0, 1, 2), (4, 5, 3)]


def test_masks_and_keypoints_belong_to_boxes() -> None:
    text = "boxes: f32[9,4]; scores: f32[9]; labels: i64[9]; masks: f32[{}]; keypoints: f32[{}]"
    for masks, points, wanted in (
        ("9,1,32,32", "9,17,3", (3, 4)),
        ("9,2,32,32", "9,17,2", (None, None)),
        ("8,1,32,32", "8,17,3", (None, None)),
    ):
        (found,) = detection_outputs(values(text.format(masks, points)))
        assert (found.masks, found.keypoints) == wanted


def test_a_task_stays_with_a_model(tmp_path: Path) -> None:
    model = parse_model("model m(x: f32[1,3,4,4])\n%y = relu(%x)\nreturn y=%y")
    model.task = "segment"
    assert serialise.from_files(serialise.to_files(model)).task == "segment"
    write_model(model, tmp_path / "m.onnx")
    assert from_onnx(tmp_path / "m.onnx").task == "segment"
    assert model.copy().task == "segment"


def test_names_of_coco() -> None:
    few, all_ids = read_labels("coco"), read_labels("coco91")
    assert (len(few), few[0], few[-1]) == (80, "person", "toothbrush")
    assert (len(all_ids), all_ids[1], all_ids[90]) == (91, "person", "toothbrush")
