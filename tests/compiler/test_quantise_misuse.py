"""Mistakes with the commands that quantise: each gets one error that says what to do, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvc.compiler.cli import main

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 48))

def nothing():
    return nn.ReLU()
"""
QUANTISE = "O1,insert-fake-quant,calibrate{images=2}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NET)
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.savez("good.npz", x=x)
    np.savez("small.npz", x=x[:, :, :4])
    x[1, 0, 0, 0] = np.nan
    np.savez("nan.npz", x=x)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(b"")
    return tmp_path


def opt(*arguments: str, model: str = "nets.py:net", output: str = "out.lvc") -> int:
    shape = ["--shape", "1x3x8x8"] if ":" in model else []
    return main(["opt", model, *shape, *arguments, "-o", output])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-p", QUANTISE, "--data", "calib=nowhere"], 2, "there is no data set 'nowhere'"),
        (["-O1", "--data", "calib=nowhere"], 2, "there is no data set 'nowhere'"),
        (["-p", QUANTISE, "--data", "good.npz"], 2, "for example --data calib=good.npz"),
        (["-p", QUANTISE, "--data", "calib=good.npz", "--data", "calib=nan.npz"], 2, "two data sets are named 'calib'"),
        (["-p", QUANTISE, "--data", "calib=nan.npz"], 2, "mend it or leave it out"),
        (["-p", QUANTISE, "--data", "calib=small.npz"], 2, "give each as 3x8x8"),
        (["-p", QUANTISE, "--data", "calib=images", "--preprocess", "cifar10"], 2, "the file is empty"),
        (["-p", "calibrate{estimator=percentile{p=99}}"], 2, 'for example "percentile{...}"'),
    ],
)
def test_each_mistake_has_one_error(
    folder: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert opt(*arguments) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("error:") == 1
    assert not (folder / "out.lvc").exists()


@pytest.mark.parametrize("first", [QUANTISE, f"{QUANTISE},lower-to-integer", "quantise-weights"])
@pytest.mark.parametrize("second", [QUANTISE, "quantise-weights", "quantise-dynamically", "mixed-precision{bytes=0.5}"])
def test_a_quantised_model_is_not_quantised_again(
    folder: Path, first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", "calib=good.npz"]
    assert opt("-p", first, *data, output="quantised.lvc") == 0
    assert opt("-p", second, *data, model="quantised.lvc") == 1
    assert "the model is quantised already" in capsys.readouterr().err
    assert not (folder / "out.lvc").exists()


@pytest.mark.parametrize("command", [["run", "good.npy"], ["bench"], ["compile", "--target", "reference"]])
def test_places_that_were_never_calibrated_are_missed(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("good.npy", np.zeros((1, 3, 8, 8), np.float32))
    assert opt("-p", "O1,insert-fake-quant", output="waiting.lvc") == 0
    name, *rest = command
    assert main([name, "waiting.lvc", *rest]) == 1
    assert "5 values have not been calibrated" in capsys.readouterr().err


def test_data_that_no_pass_reads_is_mentioned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert opt("-p", QUANTISE, "--data", "calib=good.npz", "--data", "val=good.npz") == 0
    said = capsys.readouterr().err
    assert "no pass read the data set 'val'" in said
    assert "'calib'" not in said


def test_nothing_is_not_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert opt("-O1", "--require", "int8=0.1", model="nets.py:nothing") == 3
    assert "the model has no layer that multiplies" in capsys.readouterr().err
    assert not (folder / "out.lvc").exists()
