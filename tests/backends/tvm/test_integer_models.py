"""A trained network from floating point to integer kernels: every byte of the artefact's output is the oracle's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvc.backends.tvm import BACKEND
from lvc.compiler.cli import main
from lvc.compiler.container import read
from lvc.compiler.driver import load

NETWORKS = Path(__file__).parents[3] / "examples" / "cifar_resnet.py"


@pytest.mark.slow
def test_a_trained_network_in_integers(assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.asarray(Image.open(assets / "cifar10" / "cifar10_train400.webp").convert("RGB"))
    tiles = pixels.reshape(8, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(400, 32, 32, 3)
    np.savez(tmp_path / "calib.npz", x=tiles[::10])
    weights = str(assets / "cifar10" / "resnet20-12fca82f.th")
    command = ["compile", f"{NETWORKS}:resnet20", "--weights", weights, "--shape", "1x3x32x32"]
    command += ["--preprocess", "cifar10", "--data", f"calib={tmp_path / 'calib.npz'}"]
    pipelines = {"native": "int8-fast", "reference": "int8-fast,lower-to-integer,fuse-operators"}
    paths = {name: tmp_path / f"{name}.lvc" for name in ("native", "reference")}
    for name, path in paths.items():
        assert main([*command, "-p", pipelines[name], "--target", name, "-o", str(path)]) == 0
    assert "(100.0%)" in capsys.readouterr().out
    native, oracle = (load(read(path), threads=1) for path in paths.values())
    assert native.artefact.backend == BACKEND.name
    random = np.random.default_rng(0)
    for _ in range(20):
        image = random.standard_normal((1, 3, 32, 32)).astype(np.float32)
        np.testing.assert_array_equal(native(image), oracle(image))
