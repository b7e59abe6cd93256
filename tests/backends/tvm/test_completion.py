"""A quantised model becomes integer kernels where code is made, without the user's asking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lvc.compiler import driver
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.observers import Dump, StopAfter
from lvc.compiler.pipeline.workspace import DataSet, Workspace

PIPELINE = "O1,insert-fake-quant,calibrate{images=4}"


class Images(list[tuple[np.ndarray, int | None]]):
    """Random images."""


def images() -> DataSet:
    random = np.random.default_rng(0)
    return Images((random.standard_normal((1, 3, 8, 8)).astype(np.float32), None) for _ in range(4))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)]
    return from_module(torch.nn.Sequential(*layers).eval(), torch.zeros(1, 3, 8, 8))


def test_a_quantised_model_is_built_from_integer_kernels(model: Model, tmp_path: Path) -> None:
    workspace = Workspace(data={"calib": images}, threads=1)
    artefact, report = driver.compile_and_report(
        model, PIPELINE, "native", check=True, workspace=workspace, observers=[Dump(tmp_path)]
    )
    assert str(artefact.metadata["pipeline"]).endswith("calibrate{images=4},lower-to-integer,fuse-operators")
    assert [item.text for item in report.passes][-2:] == ["lower-to-integer", "fuse-operators"]
    assert "lvc." not in (tmp_path / "00-input.txt").read_text()
    last = max(tmp_path.iterdir())
    assert last.name.endswith("-fuse-operators.txt")
    assert last.read_text().count("lvc.conv2d") == 2


def test_other_targets_and_runs_that_stop_early_are_left_alone(model: Model) -> None:
    workspace = Workspace(data={"calib": images}, threads=1)
    onnx = driver.compile(model, PIPELINE, "onnx", workspace=workspace)
    assert "lower-to-integer" not in str(onnx.metadata["pipeline"])
    plain, report = driver.compile_and_report(model, "O1", "native", observers=[StopAfter(1)])
    assert len(report.passes) == 1
    assert plain.metadata["pipeline"] == report.pipeline
