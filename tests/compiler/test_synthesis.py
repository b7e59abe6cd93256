"""Images made from a model: what arrives at its normalisations is what they remember, and passes take them as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lvc.compiler.cli import main
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit
from lvc.compiler.data.synthesised import Synthesis
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.recipe.recipe import Recipe
from lvc.compiler.running.synthesis import Synthesiser, check

FEW = "synthesised,images=16,steps=60,batch=8,rate=0.1"
NETS = """
import torch
from torch import nn

def make():
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(8, 4))
    net(torch.rand(64, 3, 8, 8) * 2)
    return net.eval()
"""


class Network(nn.Module):
    """Two normalisations that have seen smooth colours, far from noise around 0, and scores of four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def arriving(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.first(image)
        return first, self.second(torch.relu(self.bn1(first)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.last(torch.relu(self.bn2(self.arriving(image)[1])).mean((2, 3))), 1)


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Network().train()
        with torch.no_grad():
            net.last.weight.mul_(4)
            for _ in range(60):
                net(
                    torch.randn(16, 3, 1, 1) * 0.6
                    + torch.randn(16, 3, 8, 8) * 0.1
                    + torch.tensor([0.5, 0, -0.5])[:, None, None]
                )
    return net.eval()


def model(preprocessing: str | None = None) -> Model:
    made = from_module(network(), torch.zeros(1, 3, 8, 8), name="net")
    made.preprocessing = preprocessing
    return made


def inputs(data: object) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([array for array, _ in data]))  # type: ignore[attr-defined]


@torch.no_grad()
def apart(images: torch.Tensor) -> float:
    """How far the means and deviations that arrive are from those remembered, in deviations, the mean of all."""
    net = network()
    found = []
    for value, norm in zip(net.arriving(images), (net.bn1, net.bn2), strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        deviation = norm.running_var.sqrt()
        found += [(value.mean((0, 2, 3)) - norm.running_mean).abs() / deviation]
        found += [(value.std((0, 2, 3)) / deviation - 1).abs()]
    return float(torch.cat(found).mean())


def test_statistics_are_those_that_the_model_remembers() -> None:
    made = inputs(Synthesiser(model())("synthesised,images=32,steps=150,rate=0.1", None))
    assert made.shape == (32, 3, 8, 8)
    noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(0))
    assert apart(made) < 0.1
    assert apart(noise) > 0.4
    loose = inputs(Synthesiser(model())("synthesised,images=32,steps=150,rate=0.1,statistics=0", None))
    assert apart(loose) > 2 * apart(made)


def test_all_classes_are_drawn() -> None:
    """As many images of each: the model names that class, for which it has to be in front of its softmax."""
    made = inputs(Synthesiser(model())("synthesised,images=16,steps=150,rate=0.1,classes=1", None))
    with torch.no_grad():
        named = network()(made).argmax(1).bincount(minlength=4)
    assert named.tolist() == [4, 4, 4, 4]


def test_a_seed_decides_and_what_was_kept_is_not_made_again(tmp_path: Path) -> None:
    first = inputs(Synthesiser(model(), checkpoints=tmp_path)(FEW, None))
    (kept,) = tmp_path.glob("*.npz")
    assert torch.equal(inputs(Synthesiser(model())(FEW, None)), first)
    assert not torch.equal(inputs(Synthesiser(model(), seed=1)(FEW, None)), first)
    written = np.load(kept)["x"]
    np.savez(kept, x=written[:8])  # as it is after a kill between two batches
    assert torch.equal(inputs(Synthesiser(model(), checkpoints=tmp_path)(FEW, None)), first)
    np.savez(kept, x=written[::-1])
    assert torch.equal(inputs(Synthesiser(model(), checkpoints=tmp_path)(FEW, None)), first.flip(0))


@pytest.mark.parametrize("settings", ["imagenet", "imagenet,layout=bgr", "range=255"])
def test_images_are_pixels_where_it_is_known_how_they_are_prepared(settings: str) -> None:
    """They have the model's size already: nothing is resized or cropped."""
    data = Synthesiser(model())("synthesised,images=4,steps=60,rate=0.1", settings)
    access = data.access()
    assert access.picture is not None
    pixels = np.stack([access.picture(place) for place in access.places])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (4, 8, 8, 3)
    planes = Preprocess.parse(settings).to_planes(pixels)
    assert np.array_equal(inputs(data).numpy(), planes)
    if settings != "range=255":  # what the model saw was never of that range
        assert apart(torch.from_numpy(planes)) < 0.35


FOLDED = "model folded(x: f32[1,3,8,8])\n  @w : f32[4,3,8,8]\n  %y = conv2d(%x, @w, None)\n  return y=%y\n"


def test_a_model_that_remembers_nothing_gives_one_error() -> None:
    with pytest.raises(UsageError, match="no images can be synthesised from 'folded'") as caught:
        Synthesiser(parse_model(FOLDED))("synthesised", None)
    assert "it has none" in str(caught.value.why)
    assert "no labels" in str(caught.value.help)
    with pytest.raises(UsageError, match="no images can be synthesised for input"):
        check(model(), replace(Fit.of(model().inputs), dtype=np.dtype(np.uint8)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthesised,image=4", "'image=4' is not a setting of synthesised images"),
        ("synthesised,images=0", "images of synthesised images must be an integer from 1, not '0'"),
        ("synthesised,rate=nan", "rate of synthesised images must be a number from 0, not 'nan'"),
    ],
)
def test_a_misspelt_setting_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Synthesis.parse(text)
    assert caught.value.what == message


def test_settings_are_written_as_they_are_read() -> None:
    assert str(Synthesis.parse("synthesised,steps=300,images=512,l2=0.5")) == "synthesised,steps=300,l2=0.5"


def test_passes_take_them_and_whoever_evaluates_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    given = ["nets.py:make", "--shape", "1x3x8x8"]
    data = ["--data", "calib=synthesised,images=16,steps=20"]
    assert main(["opt", *given, "-p", "prune-channels{ratio=0.5}", *data, "-o", "net.lvc"]) == 0
    assert "'calib' was synthesised: what is measured on it need not hold" in capsys.readouterr().err
    assert main(["eval", "net.lvc", "--data", "synthesised"]) == 2
    assert "synthesised images are for passes alone" in capsys.readouterr().err
    assert (
        main(["opt", *given, "-p", "prune-channels{ratio=0.5}", "--data", "calib=synthesised,x=1", "-o", "n.lvc"]) == 2
    )
    assert "is not a setting" in capsys.readouterr().err


def test_a_recipe_may_ask_for_them() -> None:
    text = 'pipeline = "O1"\n[data]\ncalib = "synthesised,images=9"\n'
    assert Recipe.parse("r.toml", text, Path("folder")).data["calib"].path == "synthesised,images=9"
