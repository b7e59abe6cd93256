"""A model for another number of images: each gets what it gets alone, and a model that mixes images is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_check import check
from torch import nn

from lvc.compiler.ir.batching import rules
from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.batching import BatchError
from lvc.compiler.ir.batching.call import Call, Step
from lvc.compiler.ir.batching.rules import ONLY_STORED, RULES
from lvc.compiler.ir.dialect import OPS, aten
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer
from lvc.compiler.load import from_module, load
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

SLOW = pytest.mark.slow


def traced(forward: Callable[[torch.Tensor], object], *shape: int) -> Model:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            return forward(x)

    return from_module(Net(), torch.zeros(shape))


def test_every_operator_has_a_rule() -> None:
    assert set(OPS) == {*RULES, *ONLY_STORED}


def windows(x: torch.Tensor) -> torch.Tensor:
    """Attention within windows of 4x4, whose number is multiplied with that of the images."""
    n, c, h, w = x.shape
    cut = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
    heads = cut.reshape(-1, 16, 2, c // 2).transpose(1, 2)
    mask = torch.linspace(0, 1, (h // 4) * (w // 4) * 256).view(-1, 1, 16, 16)
    scores = (heads @ heads.transpose(2, 3)).view(n, -1, 2, 16, 16) + mask
    mixed = (scores.view(-1, 2, 16, 16).softmax(-1) @ heads).transpose(1, 2).reshape(-1, 16, c)
    return mixed.view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def shuffle(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w).relu()


def positions_first(x: torch.Tensor) -> torch.Tensor:
    """Attention as PyTorch computes it: positions first, heads beside images, and a flat product in between."""
    rows = x.flatten(2).permute(2, 0, 1)
    length, n, c = rows.shape
    flat = rows.reshape(length * n, c) @ torch.linspace(-1, 1, c * c).view(c, c)
    heads = flat.view(length, n * 2, c // 2).transpose(0, 1)
    scores = torch.bmm(heads, heads.transpose(1, 2)).softmax(-1)
    return torch.bmm(scores, heads).transpose(0, 1).reshape(length, n, c).permute(1, 2, 0)


def token(x: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(2).transpose(1, 2)
    first = torch.linspace(0, 1, rows.shape[2]).view(1, 1, -1).expand(len(rows), -1, -1)
    return torch.cat([first, rows, rows.flip(1)], 1)[:, ::2]


def frames(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three crops of each image, one after the other in one batch."""
    n = len(x)
    crops = torch.stack([x, x.flip(3), x * 2], 1).flatten(0, 1).relu()
    return crops, crops.view(n, 3, -1).mean(1)


def sampled(x: torch.Tensor) -> torch.Tensor:
    """Images read at places of their own, then at places that are one for all."""
    own = torch.nn.functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)
    places = torch.linspace(-1.2, 1.2, 60).view(1, 6, 5, 2).expand(len(x), -1, -1, -1)
    return torch.nn.functional.grid_sample(own, places, padding_mode="border", align_corners=True)


NETWORKS = {
    "windows": windows,
    "sampled": sampled,
    "shuffle": shuffle,
    "positions": positions_first,
    "token": token,
    "frames": frames,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 2])
def test_sizes_that_hold_the_batch_follow_it(name: str, batch: int) -> None:
    model = traced(NETWORKS[name], batch, 4, 8, 8)
    for images in (1, 3, 6):
        check(model, images)


def test_tensors_are_shared() -> None:
    model = traced(token, 1, 4, 8, 8)
    twin = model.with_batch(3)
    for ours, theirs in zip(model.module.buffers(), twin.module.buffers(), strict=True):
        assert ours is theirs
    assert [str(value) for value in model.inputs] == ["x: f32[1,4,8,8]"]


MIXERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x - x.mean(0, keepdim=True),
    "amax": lambda x: x / x.abs().amax(),
    "softmax": lambda x: x.softmax(0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 0),
    "matmul": lambda x: x.flatten(1) @ x.flatten(1).T,
    "reshape": lambda x: x.reshape(-1).softmax(0),
    "cumsum": lambda x: x.cumsum(0),
    "conv2d": lambda x: torch.conv2d(x.permute(1, 0, 2, 3), torch.ones(1, len(x), 1, 1)),
    "layer_norm": lambda x: torch.layer_norm(x, x.shape),
    "grid_sample": lambda x: torch.nn.functional.grid_sample(
        x.permute(1, 2, 0, 3), torch.zeros(4, 3, 3, 2), align_corners=False
    ),
    "batch_norm": lambda x: torch.batch_norm(
        x.permute(1, 0, 2, 3), None, None, torch.zeros(len(x)), torch.ones(len(x)), False, 0.1, 1e-5, False
    ),
}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_what_mixes_images_is_refused_by_name(name: str, batch: int) -> None:
    model = traced(MIXERS[name], batch, 4, 8, 8)
    with pytest.raises(BatchError) as refusal:
        model.with_batch(4)
    assert refusal.value.where
    assert refusal.value.why


def test_a_value_for_all_images_is_no_output_of_a_batch() -> None:
    model = parse_model(
        "model m(x: f32[1,4])\n@w.value : f32[3]\n%y = relu(%x)\n%z = relu(@w.value)\nreturn a=%y, b=%z"
    )
    with pytest.raises(BatchError, match="output 'b' is not that of a batch"):
        model.with_batch(2)


def test_inputs_without_a_common_batch_are_refused() -> None:
    model = parse_model("model m(x: f32[1,4], y: f32[2,4])\n%z = add(%x, %y)\nreturn a=%z")
    with pytest.raises(BatchError, match="no batch in common"):
        model.with_batch(2)


@pytest.mark.parametrize("images", [2, 9])
def test_the_proof_finds_what_a_wrong_rule_lets_pass(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: Call) -> Iterator[Step]:
        yield Step(call.only("self"))

    monkeypatch.setitem(rules.RULES, aten.flip.default, wrong)
    monkeypatch.setitem(rules.RULES, aten.cumsum.default, wrong)
    for mixer in (MIXERS["flip"], MIXERS["cumsum"], lambda x: x + 1e-3 * x.flip(0)):
        with pytest.raises(BatchError, match="depends on the others of its batch"):
            traced(mixer, 1, 4, 8, 8).with_batch(images)


def test_an_axis_apart_and_together() -> None:
    value = torch.arange(2 * 3 * 4 * 5).view(5, 24)
    axis = BatchAxis(1, outer=2, inner=4)
    for image in range(3):
        assert axis.image(value, image, 1).equal(value.view(5, 2, 3, 4)[:, :, image].flatten(1))
        assert axis.image(axis.spread(axis.image(value, 1, 1), 1, 3), image, 1).equal(axis.image(value, 1, 1))
    turned = axis.spread(value, 3, 5)
    assert [axis.image(turned, i, 1).equal(axis.image(value, i % 3, 1)) for i in range(5)] == [True] * 5


INTEGERS = {
    "int8,lower-to-integer": (
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(72, 7)),
    ),
    "quantise-dynamically": (nn.Flatten(), nn.Linear(300, 16), nn.ReLU(), nn.Linear(16, 7)),
}


@pytest.mark.parametrize("text", INTEGERS)
def test_integers_are_the_same_to_the_last_bit(text: str) -> None:
    model = from_module(nn.Sequential(*INTEGERS[text]), torch.zeros(1, 3, 10, 10))
    images = [(np.random.default_rng(at).standard_normal((1, 3, 10, 10)).astype(np.float32), None) for at in range(8)]
    whole, _ = Pipeline.parse(text).run(model, Workspace(data={"calib": lambda: images}))
    assert any(calls(whole.module.graph, integer.conv2d, integer.linear))
    check(whole, 5, bound=0.0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v3_small", 64),
        ("shufflenet_v2_x0_5", 64),
        pytest.param("resnet18", 64, marks=SLOW),
        pytest.param("regnet_y_400mf", 64, marks=SLOW),
        pytest.param("densenet121", 64, marks=SLOW),
        pytest.param("googlenet", 96, marks=SLOW),
        pytest.param("convnext_tiny", 64, marks=SLOW),
        pytest.param("swin_t", 64, marks=SLOW),
        pytest.param("swin_v2_t", 64, marks=SLOW),
        pytest.param("maxvit_t", 224, marks=SLOW),
        pytest.param("vit_b_32", 224, marks=SLOW),
        pytest.param("lraspp_mobilenet_v3_large", 64, marks=SLOW),
        pytest.param("deeplabv3_mobilenet_v3_large", 64, marks=SLOW),
    ],
)
def test_networks_of_torchvision(name: str, size: int) -> None:
    from torchvision import models

    torch.manual_seed(0)
    is_map = name.startswith(("lraspp", "deeplab"))
    options = {"weights_backbone": None} if is_map else {}
    options |= {"init_weights": False} if name == "googlenet" else {}
    module = getattr(models.segmentation if is_map else models, name)(weights=None, **options).eval()
    check(from_module(module, torch.zeros(1, 3, size, size)), 3)


@pytest.mark.parametrize("name", ["mnist_cntk", pytest.param("yunet_n_320", marks=SLOW), "yolox_nano"])
def test_networks_from_onnx(name: str, assets: Path) -> None:
    check(load(str(assets / "onnx" / f"{name}.onnx")), 2)


def test_an_output_that_is_all_rounding_is_computed_again_in_double_precision() -> None:
    """An untrained SqueezeNet ends in a layer that hardly fires: what is left of its sums is below 1e-4 of them."""
    model = load("torchvision.models:squeezenet1_1", arguments={"num_classes": 2}, shapes={"": (1, 3, 32, 32)})
    assert model.with_batch(8).outputs[0].spec.shape == (8, 2)
