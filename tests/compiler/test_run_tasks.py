"""What `lvc run` prints and draws for models that detect or segment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_tasks import NAMES, SIDE, Colours, Spots, artefact, picture
from torch import Tensor

from lvc.compiler.cli import main
from lvc.compiler.data.drawing import colour, with_boxes, with_classes, with_points
from lvc.compiler.data.placement import Placement
from lvc.compiler.data.preprocess import Preprocess


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["letterbox=40", "letterbox=24x60@9", "resize=30,crop=24x20", "resize=37x53", "resize=50,crop=9"]),
    st.integers(20, 90),
    st.integers(20, 90),
)  # fmt: skip
def test_pixels_are_found_where_they_came_from(text: str, height: int, width: int) -> None:
    """A picture whose colours are coordinates shows where each pixel of the input is from."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 2, columns * 2, rows * 0 + 255], -1).astype(np.uint8)
    made = Preprocess.parse(f"{text},range=255")
    found, placement = made(pixels)[0], made.placement((height, width))
    y, x = np.nonzero(found[2] == 255)
    middles = np.stack([x, y, x + 1, y + 1], 1)
    boxes = placement.boxes(middles)
    wanted = np.stack([found[1, y, x], found[0, y, x]], 1) / 2 + 0.5
    inside = (wanted > 2.5).all(1) & (wanted < (width - 2.5, height - 2.5)).all(1)
    tolerance = 0.5 / np.array(placement.scale)[::-1] * 0.2 + 0.8
    assert inside.any()
    assert (np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - wanted)[inside] <= tolerance).all()


def test_boxes_stay_within_the_picture() -> None:
    placement = Preprocess.parse("letterbox=32@0").placement((40, 64))
    boxes = placement.boxes(np.array([[-5, 2, 40, 30], [0, 0, 16, 10]], np.float32))
    np.testing.assert_allclose(boxes, [[0, 4, 64, 40], [0, 0, 32, 20]])


def test_classes_come_back_to_the_pixels_of_the_picture() -> None:
    classes = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(Placement((3, 4)).classes(classes, (3, 4)), classes)
    np.testing.assert_array_equal(
        Placement((6, 8), (0.5, 0.5)).classes(classes, (3, 4)), classes.repeat(2, 0).repeat(2, 1)
    )
    np.testing.assert_array_equal(Placement((5, 4), shift=(1, 0)).classes(classes, (3, 4))[1:4], classes)
    assert (Placement((5, 4), shift=(1, 0)).classes(classes, (3, 4))[[0, 4]] == -1).all()
    np.testing.assert_array_equal(Placement((12, 16)).classes(classes, (12, 16))[::4, ::4], classes)


def test_boxes_are_printed_in_pixels_of_the_picture_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, photo = artefact(Spots(), tmp_path / "spots.lvc"), picture(tmp_path / "photo.png")
    assert main(["run", model, photo, "--json", "--score", "0.58"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [(one["label"], one["index"]) for one in result["boxes"]] == [("red", 1)]
    assert result["boxes"][0]["box"] == [0, 0, 32, 32]
    assert result["boxes"][0]["score"] == pytest.approx(250 / 255 * 10 / 16, abs=0.01)
    out = tmp_path / "boxes.png"
    assert main(["run", model, photo, "--score", "0.05", "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == ["score", "class", photo, "x1", "y1", "x2", "y2"]
    assert [line.split()[2] for line in shown.out.splitlines()[1:]] == ["red", "green", "blue"]
    assert f"wrote {out}" in shown.err
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == (40, 64, 3)
    assert tuple(drawn[36, 0]) == colour(3)  # the left side of the box of blue


def test_segments_are_counted_and_tinted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, photo = artefact(Colours(), tmp_path / "colours.lvc"), picture(tmp_path / "photo.png")
    out = tmp_path / "out"
    assert main(["run", model, photo, "--json", "-o", str(out)]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    shares = {one["label"]: one["share"] for one in result["classes"]}
    assert shares == pytest.approx(dict.fromkeys(NAMES, 0.25), abs=0.04)
    drawn = np.asarray(Image.open(out / "photo.png"), np.int64)
    before = np.asarray(Image.open(photo), np.int64)
    assert (drawn[-5:, -5:] == before[-5:, -5:]).all()
    np.testing.assert_allclose(drawn[3, 3], (before[3, 3] + colour(1)) / 2, atol=1)


class Persons(Spots):
    """What it finds has a mask, its quarter, and 17 keypoints, of which the last is missing."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = super().forward(image)
        x, y = (torch.arange(SIDE).reshape(shape) for shape in ((1, 1, 1, -1), (1, 1, -1, 1)))
        left, top, right, bottom = (side.reshape(-1, 1, 1, 1) for side in found["boxes"].unbind(1))
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        middle = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2
        seen = torch.ones(17, 1)
        seen[16] = 0
        points = torch.cat([middle[:, None].expand(-1, 17, -1), seen.expand(3, 17, 1)], 2)
        return {**found, "masks": inside.float() * 0.9, "keypoints": points}


def test_masks_and_keypoints_are_told_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, photo = artefact(Persons(), tmp_path / "persons.lvc"), picture(tmp_path / "photo.png")
    out = tmp_path / "out.png"
    assert main(["run", model, photo, "--json", "--score", "0.58", "-o", str(out)]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    (one,) = result["boxes"]
    assert one["pixels"] == 32 * 32  # of 16x16 in the input, at half the size of the picture
    assert one["keypoints"] == [[16, 16]] * 16 + [None]
    drawn, before = (np.asarray(Image.open(file), np.int64) for file in (out, photo))
    np.testing.assert_allclose(drawn[26, 26], (before[26, 26] + colour(1)) / 2, atol=1)
    assert tuple(drawn[16, 16]) == colour(1)
    assert (drawn[30:, 40:] == before[30:, 40:]).all()


def test_limbs_are_drawn_between_the_points_that_are_there() -> None:
    points = np.full((17, 2), np.nan)
    points[[5, 7]] = [[5, 5], [25, 5]]
    drawn = np.asarray(with_points(Image.new("RGB", (32, 32)), [(points, 2)]))
    assert tuple(drawn[5, 15]) == colour(2)
    assert not drawn[10:].any()
    few = np.asarray(with_points(Image.new("RGB", (32, 32)), [(points[:16], 2)]))
    assert not few[5, 15].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "{photo}", "{photo}", "-o", "{here}/a.png"], "is one picture, and 2 files are given"),
        (["{model}", "{photo}", "{photo}", "-o", "{here}/out"], "two pictures would be written"),
        (["{model}", "{array}", "-o", "{here}/a.png"], "is no picture to draw onto"),
        (["{model}", "{photo}", "--task", "classify"], "the model does not classify"),
        (["{model}", "{photo}", "--score", "2"], "not a number from 0 to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, SIDE, SIDE), np.float32))
    model, photo = artefact(Spots(), tmp_path / "spots.lvc"), picture(tmp_path / "photo.png")
    places = {"model": model, "photo": photo, "array": str(tmp_path / "x.npy"), "here": str(tmp_path)}
    assert main(["run", *(text.format(**places) for text in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_classifier_has_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = artefact(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 4)), tmp_path / "c.lvc")
    assert main(["run", model, picture(tmp_path / "photo.png"), "-o", str(tmp_path / "a.png")]) == 2
    assert "there is nothing to draw" in capsys.readouterr().err


def test_pictures_of_any_size_can_be_drawn_onto() -> None:
    for size in ((1, 1), (3, 900)):
        image = Image.new("L", size)
        assert with_boxes(image, [((0, 0, 5, 5), 7, "a long name 0.97"), ((2, 2, 1, 1), 0, "")]).size == size
        assert with_classes(image, np.full(size[::-1], -1)).size == size
