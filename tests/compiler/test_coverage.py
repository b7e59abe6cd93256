"""A build that must run in integers fails when it does not, with the layers that are to blame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lvc.compiler.cli import main
from lvc.compiler.errors import CheckError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.measure.coverage import Coverage, Requirement
from lvc.compiler.pipeline.passes import Skip
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.writing import write_model

ALL = "insert-fake-quant,calibrate"
HALF = 'insert-fake-quant{skip="1"},calibrate'
"""The origins of the layers are their places in the network."""


class Once:
    """One image."""

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        return iter([(np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32), None)])


def net() -> Model:
    """Two convolutions, the second with three times the work of the first."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 12, 1))
    return from_module(layers, torch.zeros(1, 4, 6, 6), name="net")


def made(pipeline: str) -> Model:
    return Pipeline.parse(pipeline).run(net(), Workspace(data={"calib": Once}))[0]


@pytest.mark.parametrize(
    ("pipeline", "simulated", "share"),
    [
        ("O1", True, 0.0),
        (ALL, False, 0.0),
        (ALL, True, 1.0),
        (HALF, True, 0.25),
        (f"{ALL},lower-to-integer", False, 1.0),
        (f"{HALF},lower-to-integer", False, 0.25),
    ],
)
def test_the_share_is_counted_from_the_graph(pipeline: str, simulated: bool, share: float) -> None:
    assert Coverage.of(made(pipeline), simulated=simulated).share == share


def test_the_first_reason_is_told_and_the_bound_is_exact() -> None:
    model = made(f"{HALF},lower-to-integer")
    Requirement(0.25).check(model, [])
    (rest,) = Coverage.of(model).rest
    skips = [Skip(rest.name, "", "skip=1 leaves it out"), Skip(rest.name, "", "its input is not quantised")]
    with pytest.raises(CheckError, match=r"25 % of .* run in integers, and 30 % are required") as error:
        Requirement(0.3).check(model, skips)
    assert error.value.why.endswith("75 %: skip=1 leaves it out")
    assert error.value.where == "1 of 2 layers are in floating point"


@pytest.mark.parametrize("text", ["int8", "int8=", "int8=0", "int8=1.5", "int8=nan", "int4=0.5", "0.9"])
def test_misuse(text: str) -> None:
    from lvc.compiler.errors import UsageError

    with pytest.raises(UsageError, match=r"is not a share|asks for nothing"):
        Requirement.parse(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(net(), tmp_path / "net.lvc")
    np.savez(tmp_path / "calib.npz", x=next(iter(Once()))[0])
    return tmp_path


@pytest.mark.parametrize("command", [["opt"], ["compile", "-t", "reference"]])
def test_nothing_is_written(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["net.lvc", "--data", "calib=calib.npz", "-o", "q.lvc", "--require", "int8=0.9"]
    assert main([*command, *given, "-p", f"{HALF},lower-to-integer"]) == 3
    said = capsys.readouterr().err
    assert "25 % of 2.30 kMACs run in integers, and 90 % are required" in said
    assert "leaves it out" in said
    assert not (folder / "q.lvc").exists()
    assert main([*command, *given, "-p", ALL]) == 3
    assert "its integers are only simulated" in capsys.readouterr().err
    assert main([*command, *given, "-p", f"{ALL},lower-to-integer"]) == 0
    assert (folder / "q.lvc").exists()


def test_others_run_what_is_simulated_in_onnx(folder: Path) -> None:
    given = ["net.lvc", "-p", ALL, "--data", "calib=calib.npz", "--require", "int8=0.9"]
    assert main(["opt", *given, "-o", "q.onnx"]) == 0
    assert main(["compile", *given, "-t", "onnx", "-o", "r.onnx"]) == 0
