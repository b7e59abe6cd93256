"""Whole models on the emulated GPU agree with PyTorch; none spills. Those of the wild at 64x64 are for test-targets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from cuda_on_cpu import Emulated
from gpu_models import build, integer_resnet20, needs_nvrtc, rewritten, spills
from PIL import Image

import lvc
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytestmark = needs_nvrtc
EXAMPLES = Path(__file__).parents[4] / "examples"
TOLERANCE = 1e-4


def check(network: torch.nn.Module, *shape: int, target: str) -> None:
    model, x = rewritten(network, *shape)
    emulated = Emulated(build(model, target))
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    (found,) = emulated(x)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert not spills(emulated)
    assert all(count.conflict_free > 0.9 for count in emulated.counts.values())


def test_resnet20(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import cifar_resnet

    check(cifar_resnet.resnet20(), 1, 3, 32, 32, target="cuda:sm_75")
    sys.modules.pop("cifar_resnet")


@pytest.mark.targets
@pytest.mark.parametrize("target", ["cuda:sm_75", "cuda:sm_80", "cuda:sm_90"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0"])
def test_models_of_the_wild(name: str, target: str) -> None:
    torch.manual_seed(0)
    check(getattr(torchvision.models, name)(), 1, 3, 64, 64, target=target)


@pytest.mark.targets
@pytest.mark.parametrize("target", ["cuda:sm_75", "cuda:sm_80", "cuda:sm_90"])
def test_one_layer_of_vit_b_16(target: str) -> None:
    """Of its twelve, which are alike, at its own width and 5 tokens in place of 197."""
    network = torchvision.models.VisionTransformer(32, 16, 1, 12, 768, 3072, num_classes=16)
    torch.nn.init.normal_(network.heads.head.weight)
    check(network, 1, 3, 32, 32, target=target)


@pytest.mark.targets
@pytest.mark.parametrize("target", ["cuda:sm_75", "cuda:sm_80", "cuda:sm_90"])
def test_resnet20_in_integers(target: str) -> None:
    """Every byte of what the integer graph gives."""
    model, x = integer_resnet20()
    for found, wanted in zip(Emulated(build(model, target))(x), model(x), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.targets
@pytest.mark.parametrize("target", ["cuda:sm_75", "cuda:sm_80", "cuda:sm_90"])
def test_yolox_nano_with_its_boxes(target: str, assets: Path) -> None:
    """Trained, at its own size of 416x416, from a photograph to the boxes that stay."""
    loaded = lvc.load_model(str(assets / "onnx" / "yolox_nano.onnx"))
    steps = 'append-postprocess{steps="yolox,nms"},O2'
    model, _ = Pipeline.parse(steps).run(loaded, Workspace(threads=1))
    photograph = Image.open(min((assets / "coco" / "images").glob("*.jpg"))).convert("RGB").resize((416, 416))
    x = np.ascontiguousarray(np.asarray(photograph)[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
    emulated = Emulated(build(model, target))
    for found, wanted in zip(emulated(x), model(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * max(1, np.abs(wanted).max()))
    assert not spills(emulated)


@pytest.mark.targets
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_models_of_other_kinds(name: str) -> None:
    torch.manual_seed(0)
    check(getattr(torchvision.models, name)(), 1, 3, 64, 64, target="cuda:sm_80")


@pytest.mark.targets
@pytest.mark.parametrize("name", ["vit", "swin", "convnext"])
def test_small_models_of_the_families_with_normalised_layers(name: str) -> None:
    torch.manual_seed(0)
    models = torchvision.models
    blocks = [models.convnext.CNBlockConfig(16, 32, 1), models.convnext.CNBlockConfig(32, None, 1)]
    network = {
        "vit": lambda: models.VisionTransformer(32, 16, 2, 4, 64, 128),
        "swin": lambda: models.SwinTransformer([4, 4], 32, [1, 1], [2, 2], [2, 2]),
        "convnext": lambda: models.ConvNeXt(blocks),
    }[name]()
    if name == "vit":
        torch.nn.init.normal_(network.heads.head.weight)
    check(network, 1, 3, 32, 32, target="cuda:sm_80")
