"""The detector keeps its average precision through the compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coco_score import IOUS, _matched, decode, score

from lvc.compiler.load.onnx_importer import from_onnx


def test_each_label_is_found_once() -> None:
    overlaps = np.array([[0.7, 0.1], [0.9, 0.6], [0.2, 0.55]])
    hits = _matched(overlaps)
    assert hits[:, 0].tolist() == [True, True, False]
    assert hits[:, IOUS.searchsorted(0.85)].tolist() == [False, True, False]


def test_decoding_places_a_box() -> None:
    raw = np.zeros((3549, 85), np.float32)
    raw[53, :5], raw[53, 5 + 7] = (0.5, 0.5, np.log(4), np.log(2), 0.9), 1.0
    boxes = decode(raw, ratio=0.5)
    np.testing.assert_allclose(boxes.corners, [[-8, 8, 56, 40]], rtol=1e-5)
    assert boxes.classes.tolist() == [7]
    assert boxes.scores[0] == pytest.approx(0.9)


def test_a_detector_is_scored_on_the_pictures_that_it_saw(assets: Path) -> None:
    seen: list[np.ndarray] = []

    def blind(picture: np.ndarray) -> np.ndarray:
        seen.append(picture)
        return np.zeros((1, 3549, 85), np.float32)

    assert score(blind, assets / "coco", step=50) == (0.0, 0.0)
    assert len(seen) == 3


@pytest.mark.slow
def test_yolox_keeps_its_average_precision(assets: Path) -> None:
    torch.set_num_threads(1)
    model = from_onnx(assets / "onnx" / "yolox_nano.onnx")
    _, precision = score(lambda picture: model(picture)[0], assets / "coco")
    assert precision == pytest.approx(0.333, abs=0.002)
