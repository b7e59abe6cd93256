"""Trained models from the wild, compiled for this machine, compute what ONNX Runtime computes and detect as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_score import score

import lvc
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.pipeline.observers import relative_difference

onnxruntime = pytest.importorskip("onnxruntime")

PICTURE_SCALE = 128
"""The models take images of 0..255; standard normal inputs are scaled to that range."""


@pytest.fixture
def compiled(assets: Path, request: pytest.FixtureRequest) -> tuple[Path, lvc.Model, lvc.Loaded]:
    file = assets / "onnx" / request.param
    model = lvc.from_onnx(file)
    return file, model, lvc.load(lvc.compile(model, "O2", "native", check=True), threads=1)


@pytest.mark.parametrize(
    "compiled",
    ["mnist_cntk.onnx", pytest.param("yunet_n_320.onnx", marks=pytest.mark.slow)],
    indirect=True,
)
def test_outputs_are_those_of_onnx_runtime(compiled: tuple[Path, lvc.Model, lvc.Loaded]) -> None:
    file, model, run = compiled
    inputs = [PICTURE_SCALE * array for array in seeded_inputs(model.inputs, 0)]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)})
    found = run(*inputs)
    for ours, theirs in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        assert relative_difference(ours, theirs) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["yolox_nano.onnx"], indirect=True)
def test_yolox_keeps_its_average_precision(compiled: tuple[Path, lvc.Model, lvc.Loaded], assets: Path) -> None:
    _, _, run = compiled
    _, precision = score(lambda picture: np.asarray(run(picture)), assets / "coco")
    assert precision == pytest.approx(0.333, abs=0.002)
