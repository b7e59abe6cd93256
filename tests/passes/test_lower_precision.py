"""Trained classifiers in bfloat16 choose as they did; what the pass refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lvc.compiler.data import open_data
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.evaluation import Score, evaluate
from lvc.compiler.pipeline.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGENET = "imagenet/imagenet1000_224_webp85.zip"


@dataclass(frozen=True)
class Classifier:
    """A trained network, its data, and how it is asked."""

    source: str
    weights: str | None
    shape: tuple[int, ...]
    data: str
    preprocess: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def load(self, assets: Path) -> Model:
        weights = str(assets / self.weights) if self.weights else None
        return LoadRequest(f"{EXAMPLES}/{self.source}", weights, dict(self.arguments), {"": self.shape}).load()


CLASSIFIERS = {
    "resnet20": Classifier("cifar_resnet.py:resnet20", "cifar10/resnet20-12fca82f.th", (50, 3, 32, 32), "", "cifar10"),
    "resnet56": Classifier("cifar_resnet.py:resnet56", "cifar10/resnet56-4bfd9763.th", (50, 3, 32, 32), "", "cifar10"),
    "mobilenet": Classifier(
        "mobilenet_v1.py:mobilenet_v1",
        "imagenet/mobilenet_v1_0.75_224_fp16.npz",
        (10, 3, 224, 224),
        IMAGENET,
        "crop=224,range=255,mean=127.5,std=127.5",
        (("width", 0.75),),
    ),
    "efficientnet": Classifier(
        "efficientnet_lite0.py:trained",
        None,
        (10, 3, 224, 224),
        IMAGENET,
        "crop=224,range=255,mean=127,std=128",
    ),
}

# how many images fewer may be right, and the share on which both must agree
WANTED = [("resnet20", 3, 0.995), ("resnet56", 3, 0.995), ("mobilenet", 5, 0.98), ("efficientnet", 5, 0.98)]

Scores = Callable[[str, int | None], tuple[Score, Score]]


@pytest.fixture
def scores(assets: Path, tmp_path: Path) -> Scores:
    """A function that scores a classifier in float32 and in bfloat16, on so many images."""

    def measure(name: str, limit: int | None) -> tuple[Score, Score]:
        classifier = CLASSIFIERS[name]
        model = classifier.load(assets)
        long, _ = Pipeline.parse("O2").run(model)
        short, _ = Pipeline.parse("O2").with_precision("bf16").run(model)
        source = str(assets / classifier.data) if classifier.data else str(cifar_images(assets, tmp_path))
        data, batch = open_data(source, Preprocess.parse(classifier.preprocess), model.inputs), classifier.shape[0]
        return evaluate(long, data, batch, limit=limit), evaluate(short, data, batch, against=long, limit=limit)

    return measure


def cifar_images(assets: Path, folder: Path) -> Path:
    """2,000 test images in random order."""
    sprite = np.asarray(Image.open(assets / "cifar10" / "cifar10_test2000.webp").convert("RGB"))
    tiles = sprite.reshape(40, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(2000, 32, 32, 3)
    order = np.random.default_rng(0).permutation(2000)
    with np.load(assets / "cifar10" / "cifar10_test2000_labels.npz") as labels:
        np.savez(folder / "test2000.npz", x=tiles[order], y=labels["label"][order])
    return folder / "test2000.npz"


def test_a_trained_network_chooses_as_before(scores: Scores) -> None:
    long, short = scores("resnet20", 100)
    assert abs(long.top1 - short.top1) <= 1
    assert short.agreed is not None
    assert short.agreed >= 99


@pytest.mark.slow
@pytest.mark.parametrize(("name", "worse", "agreed"), WANTED)
def test_trained_networks_keep_their_accuracy(scores: Scores, name: str, worse: int, agreed: float) -> None:
    if name == "efficientnet":
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    long, short = scores(name, None)
    assert short.top1 >= long.top1 - worse
    assert short.agreed is not None
    assert short.agreed / short.images >= agreed


def traced() -> Model:
    torch.manual_seed(0)
    return from_module(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 8, 8))


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="'layer9' matches nothing"):
        Pipeline.parse("lower-precision{skip=layer9}").run(traced())


def test_an_unknown_precision_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="there is no precision 'fp8'") as caught:
        Pipeline.parse("O2").with_precision("fp8")
    assert "bf16" in caught.value.help


def test_the_graph_is_the_same_every_time() -> None:
    first, second = (Pipeline.parse("O2").with_precision("bf16").run(traced())[0].to_text() for _ in range(2))
    assert first == second


def test_inputs_and_outputs_keep_their_types() -> None:
    model = traced()
    short, _ = Pipeline.parse("O2").with_precision("bf16").run(model)
    assert (short.inputs, short.outputs) == (model.inputs, model.outputs)
    assert short.bytes < 0.6 * model.bytes


class Straightened(nn.Module):
    """An image sampled at the places of an affine map that a layer finds, here where its pixels are."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.last = nn.Linear(8, 6), nn.Conv2d(1, 1, 1)
        nn.init.zeros_(self.theta.weight)
        self.theta.bias = nn.Parameter(torch.eye(2, 3).flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.theta(x.mean((1, 3))).view(-1, 2, 3) * 1.0
        places = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
        moved: torch.Tensor = self.last(nn.functional.grid_sample(x, places, align_corners=False))
        return moved


def test_places_at_which_images_are_sampled_are_not_rounded() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, 512)
    model = from_module(Straightened(), x)
    lowered, steps = Pipeline.parse("O1,lower-precision").run(model)
    (reason,) = [skip.reason for skip in steps[-1].outcome.skipped]
    assert reason == "it gives the places at which an image is sampled, which would be wrong by pixels"
    assert "bf16" in lowered.to_text()
    assert np.abs(lowered(x.numpy())[0] - model(x.numpy())[0]).max() < 0.02
