"""Whole networks from floating point to integer kernels: every byte of the artefact's output is the oracle's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvc.backends.tvm import BACKEND
from lvc.compiler.cli import main
from lvc.compiler.container import read
from lvc.compiler.loaded import load

EXAMPLES = Path(__file__).parents[3] / "examples"
CIFAR = ["--shape", "1x3x32x32", "--preprocess", "cifar10"]
IMAGENET = ["--shape", "1x3x224x224", "--preprocess", "crop=224,range=255,mean=127.5,std=127.5"]
NETWORKS = {
    "resnet20": ("cifar_resnet.py:resnet20", "cifar10/resnet20-12fca82f.th", CIFAR),
    "resnet56": ("cifar_resnet.py:resnet56", "cifar10/resnet56-4bfd9763.th", CIFAR),
    "mobilenet": (
        "mobilenet_v1.py:mobilenet_v1",
        "imagenet/mobilenet_v1_0.75_224_fp16.npz",
        [*IMAGENET, "--arg", "width=0.75"],
    ),
    "lite0": ("efficientnet_lite0.py:trained", None, IMAGENET),
    "resnet50": ("torchvision.models:resnet50", None, IMAGENET),
    "yolox": ("onnx/yolox_nano.onnx", None, ["--preprocess", "letterbox=416x416@114,layout=bgr,range=255"]),
}
CASES = [*((name, 8) for name in NETWORKS), ("resnet20", 4), ("resnet56", 4)]


def pictures(assets: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(assets / "cifar10" / "cifar10_train400.webp").convert("RGB"))
    return pixels.reshape(8, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(400, 32, 32, 3)


def place(source: str, assets: Path) -> str:
    """Where a model is: among the examples, among the assets, or in a package."""
    if source.endswith(".onnx"):
        return str(assets / source)
    return str(EXAMPLES / source) if ".py:" in source else source


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bits"), CASES)
def test_a_network_in_integers(
    name: str, bits: int, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, weights, options = NETWORKS[name]
    simulated = f"O1,insert-fake-quant{{weight_bits={bits}}},calibrate{{images=4 compare=0}}"
    pipelines = {"native": simulated, "reference": f"{simulated},lower-to-integer,fuse-operators"}
    images = pictures(assets)[::100]
    if options is not CIFAR:
        images = images.repeat(7, 1).repeat(7, 2)
    np.savez(tmp_path / "calib.npz", x=images)
    command = ["compile", place(source, assets), *options, "--data", f"calib={tmp_path / 'calib.npz'}"]
    command += ["--weights", str(assets / weights)] if weights else []
    paths = {target: tmp_path / f"{target}.lvc" for target in pipelines}
    for target, path in paths.items():
        assert main([*command, "-p", pipelines[target], "--target", target, "-o", str(path)]) == 0
    assert "(100.0 %)" in capsys.readouterr().out
    native, oracle = (load(read(path), threads=1) for path in paths.values())
    assert native.artefact.backend == BACKEND.name
    random = np.random.default_rng(0)
    for _ in range(2):
        image = random.standard_normal(native.inputs[0].spec.shape).astype(np.float32)
        for ours, wanted in zip(native.executable(image), oracle.executable(image), strict=True):
            np.testing.assert_array_equal(ours, wanted)
