"""Trained CIFAR-10 networks score what their authors published, as models and as artefacts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvc.compiler.cli import main

NETWORKS = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
RIGHT = {"resnet20": 1836, "resnet56": 1861}  # of 2000: 91.80 % and 93.05 %


@pytest.fixture(scope="module")
def images(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 test images, 200 of each class in order of the classes, as an .npz file."""
    sprite = np.asarray(Image.open(assets / "cifar10" / "cifar10_test2000.webp").convert("RGB"))
    tiles = sprite.reshape(40, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(2000, 32, 32, 3)
    with np.load(assets / "cifar10" / "cifar10_test2000_labels.npz") as labels:
        path = tmp_path_factory.mktemp("cifar") / "test2000.npz"
        np.savez(path, x=tiles, y=labels["label"])
    return path


def count_right(capsys: pytest.CaptureFixture[str], *arguments: str) -> int:
    capsys.readouterr()
    assert main(["eval", *arguments, "--threads", "1", "--json"]) == 0
    right: int = json.loads(capsys.readouterr().out)["top1_count"]
    return right


def model_options(network: str, assets: Path) -> list[str]:
    weights = str(assets / "cifar10" / WEIGHTS[network])
    return [f"{NETWORKS}:{network}", "--weights", weights, "--shape", "1x3x32x32", "--preprocess", "cifar10"]


def test_some_images_of_the_first_class(capsys: pytest.CaptureFixture[str], assets: Path, images: Path) -> None:
    options = model_options("resnet20", assets)
    assert count_right(capsys, *options, "--data", str(images), "--limit", "100") == 94


@pytest.mark.slow
@pytest.mark.parametrize("network", RIGHT)
def test_published_accuracy(
    capsys: pytest.CaptureFixture[str], assets: Path, images: Path, tmp_path: Path, *, network: str
) -> None:
    options = model_options(network, assets)
    assert count_right(capsys, *options, "--data", str(images)) == RIGHT[network]
    artefact = str(tmp_path / "net.lvc")
    assert main(["compile", *options, "--labels", "cifar10", "-o", artefact]) == 0
    assert count_right(capsys, artefact, "--data", str(images)) == RIGHT[network]
