"""Trained networks keep their choices when they are quantised, from the command line to the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from lvc.compiler.cli import main

ROOT = Path(__file__).parents[2]
NETWORKS = ROOT / "examples" / "cifar_resnet.py"


def sprite(assets: Path, part: str, count: int, path: Path, step: int) -> str:
    """Write every so many-th image of a sprite as a data set; return its path."""
    pixels = np.asarray(Image.open(assets / "cifar10" / f"cifar10_{part}.webp").convert("RGB"))
    tiles = pixels.reshape(count // 50, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(count, 32, 32, 3)
    with np.load(assets / "cifar10" / f"cifar10_{part}_labels.npz") as labels:
        np.savez(path, x=tiles[::step], y=labels["label"][::step])
    return str(path)


def test_a_trained_network_from_the_command_line(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(assets / "cifar10" / "resnet20-12fca82f.th")
    network = [f"{NETWORKS}:resnet20", "--weights", weights, "--shape", "1x3x32x32", "--preprocess", "cifar10"]
    calibration = sprite(assets, "train400", 400, tmp_path / "calib.npz", 10)
    images = sprite(assets, "test2000", 2000, tmp_path / "test.npz", 10)
    quantised, floating = str(tmp_path / "quantised.onnx"), str(tmp_path / "floating.onnx")

    assert main(["opt", *network, "-p", "int8-fast", "--data", f"calib={calibration}", "-o", quantised]) == 0
    said = capsys.readouterr().out
    assert "insert-fake-quant: 100.0 % of 40.6 MMACs run in integers: 20 of 20 layers" in said
    assert "COLLAPSED" not in said
    assert main(["opt", *network, "-p", "O1", "-o", floating]) == 0
    assert Path(quantised).stat().st_size < 0.3 * Path(floating).stat().st_size

    kinds = {node.op_type for node in onnx.load(quantised).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    capsys.readouterr()
    compared = ["eval", quantised, "--against", floating, "--data", images, "--preprocess", "cifar10"]
    assert main([*compared, "--threads", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 200
    assert result["agreement"] >= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(("network", "agreement"), [("resnet20", 0.9915), ("resnet56", 0.994), ("mobilenet", 0.9675)])
def test_agreement_is_that_of_the_best_peer(network: str, agreement: float, assets: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "tools" / "compare_quantisation.py", "--networks", network, "--json", file]
    subprocess.run([*command, "--pipelines", "int8"], check=True, env={"LVC_TEST_ASSETS": str(assets)})
    _, row = json.loads(file.read_text())
    assert row["agreement"] >= agreement
