"""Outlines and keypoints in COCO's JSON: read safely, and scored as pycocotools scores the file itself."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_tasks import SIDE, Spots, artefact, picture
from torch import Tensor

from lvc.compiler.cli import main
from lvc.compiler.data.coco import CocoFiles, _runs
from lvc.compiler.data.placement import Placement
from lvc.compiler.errors import UsageError
from lvc.compiler.measure.average_precision import Kind, average_precision, class_table, kinds_of
from lvc.compiler.measure.detections import Detections

needs_pycocotools = pytest.mark.skipif(find_spec("pycocotools") is None, reason="pycocotools is not installed")

HEIGHT, WIDTH, POINTS = 40, 64, 17
CATEGORIES = {9: "green", 2: "red"}


def run_lengths(mask: np.ndarray) -> list[int]:
    """Pixels outside and inside in turns, column by column."""
    flat = np.concatenate([[False], mask.T.ravel(), [True]])
    flat[-1] = not flat[-2]
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes])).tolist()


def written(folder: Path, annotations: list[dict[str, Any]], images: int = 2) -> CocoFiles:
    """Pictures and a JSON that tells of them."""
    (folder / "photos").mkdir(exist_ok=True)
    for place in range(images):
        picture(folder / "photos" / f"{place}.png", HEIGHT, WIDTH)
    sizes = {"height": HEIGHT, "width": WIDTH}
    told = {
        "images": [{"id": 5 - place, "file_name": f"{place}.png", **sizes} for place in range(images)],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
        "annotations": [{"id": place + 1, **item} for place, item in enumerate(annotations)],
    }
    (folder / "told.json").write_text(json.dumps(told))
    return CocoFiles(folder / "photos", folder / "told.json")


def drawn(random: np.random.Generator, form: int) -> dict[str, Any]:
    """An object somewhere, its outline in one of three forms, with keypoints."""
    from pycocotools.mask import encode

    left, top = random.integers(0, WIDTH - 16), random.integers(0, HEIGHT - 16)
    wide, high = random.integers(6, 16, 2)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + high, left : left + wide] = random.random((high, wide)) < 0.8
    corners = random.random((5, 2)) * [wide, high] + [left, top]
    outline: Any = [corners.ravel().tolist()]
    if form == 1:
        outline = {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)}
    if form == 2:
        packed = encode(np.asfortranarray(mask, np.uint8))
        outline = {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}
    points = np.hstack([random.random((POINTS, 2)) * [wide, high] + [left, top], random.integers(0, 3, (POINTS, 1))])
    return {
        "image_id": int(random.integers(4, 6)),
        "category_id": int(random.choice(list(CATEGORIES))),
        "bbox": [int(left), int(top), int(wide), int(high)],
        "area": float(mask.sum()),
        "iscrowd": int(form == 1 and random.random() < 0.3),
        "segmentation": outline,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }


def scored(file: Path, rows: list[dict[str, Any]], kind: str) -> list[float]:
    """What pycocotools says of a file and of rows of what was found."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        run = COCOeval(truth, truth.loadRes(rows), kind)
        run.evaluate(), run.accumulate(), run.summarize()
    return [float(share) for share in run.stats[:3]]


@needs_pycocotools
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31))
def test_masks_and_keypoints_are_scored_as_pycocotools_scores_the_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    from pycocotools.mask import encode

    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("coco")
    objects = [drawn(random, form % 3) for form in range(9)] + [
        {**drawn(random, 0), "image_id": image, "category_id": 2} for image in (4, 5)
    ]
    files = written(folder, objects)
    data = files.read()
    assert [path.name for path in data.pictures] == ["1.png", "0.png"]
    assert kinds_of("instance", data.objects) == [Kind.BOXES, Kind.MASKS]
    assert kinds_of("pose", data.objects) == [Kind.BOXES, Kind.KEYPOINTS]
    found, mask_rows, point_rows = [], [], []
    names = ("nothing", "red", "green")
    for image in (4, 5):
        count = 8
        scores = np.sort(random.random(count))[::-1]
        labels = random.integers(1, 3, count)
        masks = np.zeros((count, HEIGHT, WIDTH), bool)
        points = np.zeros((count, POINTS, 2))
        for place, item in enumerate(random.choice(objects, count)):  # type: ignore[arg-type]
            left, top, wide, high = item["bbox"]
            masks[place, top : top + high, left : left + wide] = random.random((high, wide)) < 0.9
            points[place] = np.reshape(item["keypoints"], (POINTS, 3))[:, :2] + random.normal(0, 0.4, (POINTS, 2))
            category = {"red": 2, "green": 9}[names[labels[place]]]
            row = {"image_id": image, "category_id": category, "score": float(scores[place])}
            mask_rows.append({**row, "segmentation": encode(np.asfortranarray(masks[place], np.uint8))})
            absent = points[place].copy()
            absent[0] = 0
            point_rows.append({**row, "keypoints": np.hstack([absent, np.ones((POINTS, 1))]).ravel().tolist()})
        points[:, 0] = np.nan
        boxes = np.zeros((count, 4))
        placement = Placement((HEIGHT, WIDTH))
        found.append(Detections(boxes, scores, labels, masks, points, placement).packed())
    classes = class_table(names, data.names, 2)
    for kind, rows in ((Kind.MASKS, mask_rows), (Kind.KEYPOINTS, point_rows)):
        ours = average_precision(found, data, classes, kind)
        assert [ours.ap, ours.ap50, ours.ap75] == pytest.approx(scored(files.annotations, rows, kind.value), abs=1e-12)


@needs_pycocotools
@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.booleans())
def test_compressed_runs_are_those_of_the_mask(mask: np.ndarray, flat: bool) -> None:
    from pycocotools.mask import encode

    mask = mask if not flat else np.zeros_like(mask)
    text = encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    runs = _runs(text)
    assert sum(runs) == mask.size
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(mask.shape[::-1]).T
    np.testing.assert_array_equal(inside, mask)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 2, 3, 4]], "polygon that is none"),
        ([[1, 2, 3, 4, 5]], "polygon that is none"),
        ([[1, 2, 3, 4, 5, 1e300]], "too large"),
        ([[0, 0, 1e6, 0, 0, 0] * 4], "too large"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "does not cover its image"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}, "does not cover its image"),
        ({"size": [1, 3], "counts": [1, 2]}, "another size"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 40}, "compressed counts"),
        ({"size": [HEIGHT, WIDTH], "counts": "\u0001"}, "compressed counts"),
        ({"counts": [1]}, "there is no 'size'"),
    ],
)
def test_outlines_that_are_none(tmp_path: Path, outline: object, message: str) -> None:
    item = {"image_id": 5, "category_id": 2, "bbox": [0, 0, 9, 9], "segmentation": outline}
    with pytest.raises(UsageError, match="is not COCO's JSON") as caught:
        written(tmp_path, [item]).read()
    assert message in caught.value.why


def test_keypoints_that_are_none(tmp_path: Path) -> None:
    for points in ([1, 2], [1, 2, float("nan")], ["x", 1, 2]):
        item = {"image_id": 5, "category_id": 2, "bbox": [0, 0, 9, 9], "keypoints": points}
        with pytest.raises(UsageError, match="is not COCO's JSON"):
            written(tmp_path, [item]).read()


class Persons(Spots):
    """Red has a mask, its quarter, and 17 points, all in its middle; so have the others."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = super().forward(image)
        x, y = (torch.arange(SIDE).reshape(shape) for shape in ((1, 1, 1, -1), (1, 1, -1, 1)))
        left, top, right, bottom = (side.reshape(-1, 1, 1, 1) for side in found["boxes"].unbind(1))
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        middle = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2
        points = torch.cat([middle[:, None].expand(-1, POINTS, -1), torch.ones(3, POINTS, 1)], 2)
        return {**found, "masks": inside.float() * 0.9, "keypoints": points}


def told_of_red(folder: Path, points: int = POINTS) -> CocoFiles:
    """The red quarter of one picture, by a polygon; its points are in its middle."""
    square = [0, 0, 32, 0, 32, 20, 0, 20]
    item = {"image_id": 5, "category_id": 2, "bbox": [0, 0, 32, 20], "area": 640, "segmentation": [square]}
    return written(folder, [item | {"keypoints": [16, 16, 2] * points}], images=1)


@needs_pycocotools
def test_the_command_measures_masks_and_keypoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = artefact(Persons(), tmp_path / "persons.lvc")
    files = told_of_red(tmp_path)
    place = f"{files.folder}:{files.annotations}"
    assert main(["eval", model, "--data", place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["masks"]["ap50"] == pytest.approx(1)  # 32x32 pixels are found, and 32x20 of them are right: 0.625
    assert found["masks"]["ap75"] == pytest.approx(0)
    assert main(["eval", model, "--data", place, "--task", "pose", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["keypoints"]["ap"] == pytest.approx(1)
    assert "masks" not in found
    assert main(["eval", model, "--data", place]) == 0
    assert "mask AP50" in capsys.readouterr().out
    told_of_red(tmp_path, points=5)
    assert main(["eval", model, "--data", place, "--task", "pose"]) == 2
    assert "another number of keypoints" in capsys.readouterr().err
    assert main(["eval", model, "--data", place, "--annotations", str(files.annotations)]) == 2
    assert "names annotations already" in capsys.readouterr().err
    assert main(["eval", artefact(Spots(), tmp_path / "s.lvc"), "--data", place, "--task", "instance"]) == 2
    assert "does not segment instances" in capsys.readouterr().err


@needs_pycocotools
def test_labels_of_another_size_are_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, files = artefact(Persons(), tmp_path / "persons.lvc"), told_of_red(tmp_path)
    picture(files.folder / "0.png", 20, 30)
    assert main(["eval", model, "--data", f"{files.folder}:{files.annotations}"]) == 2
    assert "of a picture of another size" in capsys.readouterr().err


@needs_pycocotools
def test_without_outlines_boxes_are_measured_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = written(tmp_path, [{"image_id": 5, "category_id": 2, "bbox": [0, 0, 32, 20]}], images=1)
    model = artefact(Persons(), tmp_path / "persons.lvc")
    assert main(["eval", model, "--data", f"{files.folder}:{files.annotations}"]) == 0
    shown = capsys.readouterr()
    assert "mask AP" not in shown.out
    assert "no outlines" in shown.err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{here}/none:{here}/told.json", "is no folder of pictures"),
        ("{here}/photos:{here}/none.json", "cannot read"),
    ],
)
def test_places_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, message: str
) -> None:
    told_of_red(tmp_path)
    model = artefact(Spots(), tmp_path / "s.lvc")
    for arguments in (["eval", model, "--data"], ["opt", model, "-p", "int8", "--data"]):
        name = "calib=" if arguments[0] == "opt" else ""
        assert main([*arguments, name + place.format(here=tmp_path)]) == 2
        assert message in capsys.readouterr().err
