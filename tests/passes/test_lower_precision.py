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
from lvc.compiler.ir.graph import WINOGRAD
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.evaluation import Score, evaluate
from lvc.compiler.measure.filtering import rounding
from lvc.compiler.measure.precision import filtered_outputs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.verification.closeness import Comparison, slack_of

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


FILTERED = """model one(image: f32[1,16,12,12])
  @w : f32[16,16,3,3]
  %conv = conv2d(%image, @w, None, [1, 1], [1, 1])
  return out=%conv
"""


def lowered(text: str, model: Model | None = None) -> Model:
    return Pipeline.parse(text).run(model or parse_model(FILTERED))[0]


def tile_of(model: Model) -> object:
    (conv,) = (node for node in model.module.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    return conv.meta.get(WINOGRAD)


@pytest.mark.parametrize(
    ("text", "tile"),
    [
        ("allow-winograd,lower-precision", 2),
        ("allow-winograd{tile=2},lower-precision", 2),
        ("lower-precision", None),
        ("allow-winograd{tile=0},lower-precision", None),
        ("allow-winograd,lower-precision{winograd=0}", None),
        ("allow-winograd,lower-precision{winograd=1e-4}", None),
        ("allow-winograd,lower-precision{dtype=float16}", None),
    ],
)
def test_winograd_of_short_numbers(text: str, tile: int | None) -> None:
    assert tile_of(lowered(text)) == tile


def test_a_layer_that_winograd_would_blur_loses_its_mark() -> None:
    """A Laplacian of neighbouring channels: its outputs are small beside what is summed at the points."""
    model = parse_model(FILTERED)
    weight = torch.zeros(16, 16, 3, 3)
    weight[:, :, 1, 1], weight[:, :, 0, 0] = 1.0, -1.0
    weight += 40 * torch.tensor([1.0, -1.0]).repeat(8)[:, None, None]
    model.module.w.data.copy_(weight)
    error = rounding(weight, 2, 0, torch.bfloat16)
    assert tile_of(lowered(f"allow-winograd,lower-precision{{winograd={error * 0.9}}}", model)) is None
    assert tile_of(lowered(f"allow-winograd,lower-precision{{winograd={error * 1.1}}}", model)) == 2


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("largest", "is_lowered"), [(1.0, True), (1e5, False)])
def test_images_for_calibration_say_what_halves_would_not_hold(batch: int, largest: float, is_lowered: bool) -> None:
    """Seeded inputs are small; an image of the data set reaches beyond 65,504, or none does."""
    model = parse_model(FILTERED.replace("f32[1,16,12,12]", f"f32[{batch},16,12,12]"))
    model.module.w.data.normal_(0, 0.01)
    images = [np.full((1, 16, 12, 12), largest if number == 1 else 0.5, np.float32) for number in range(4)]
    workspace = Workspace(data={"calib": lambda: [(image, None) for image in images]})
    made, _ = Pipeline.parse("lower-precision{dtype=float16}").run(model, workspace)
    assert any("float16" in str(node.args) + str(node.kwargs) for node in made.module.graph.nodes) == is_lowered


def test_the_error_for_winograd_is_no_negative_number() -> None:
    with pytest.raises(UsageError, match="winograd must not be negative"):
        Pipeline.parse("lower-precision{winograd=-1}")


def test_the_check_knows_what_winograd_rounds() -> None:
    model = lowered("allow-winograd,lower-precision")
    inputs = (np.random.default_rng(0).standard_normal((1, 16, 12, 12)).astype(np.float32),)
    own, other = model(*inputs), filtered_outputs(model, inputs)
    rounding_of_it = other[0] - own[0]
    assert 1e-3 < np.abs(rounding_of_it).max() / np.abs(own[0]).max() < 1e-2

    def explained(found: np.ndarray, subject: Model = model) -> str | None:
        return Comparison(subject, inputs, own, (found,), slack=slack_of(subject)).explanation

    assert explained(other[0]) == "what Winograd's algorithm multiplies rounded once more"
    assert explained(own[0] + 4 * rounding_of_it) is None
    assert explained(other[0], lowered("lower-precision")) is None
    one_wrong = other[0].copy()
    one_wrong[0, 3, 4, 5] += 0.5 * np.abs(own[0]).max()
    assert explained(one_wrong) is None
