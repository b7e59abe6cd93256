"""Real networks: equal to eager, in the dialect, and as accurate as they were trained to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from traced import op_names

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import from_module, load
from lvc.compiler.pipeline.observers import relative_difference

EXAMPLES = Path(__file__).parents[2] / "examples"
SLOW = pytest.mark.slow


def _sweep() -> object:
    import importlib.util

    spec = importlib.util.spec_from_file_location("sweep", Path(__file__).parents[2] / "tools" / "sweep_torchvision.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "googlenet",
        "lraspp_mobilenet_v3_large",
        pytest.param("swin_t", marks=SLOW),
        pytest.param("swin_v2_t", marks=SLOW),
        pytest.param("maxvit_t", marks=SLOW),
        pytest.param("vit_b_32", marks=SLOW),
    ],
)
def test_torchvision_model_equals_eager(name: str) -> None:
    torch.manual_seed(0)
    module = _sweep().make(name)  # type: ignore[attr-defined]
    model = from_module(module, torch.zeros(1, 3, 224, 224))
    verify(model)
    (image,) = seeded_inputs(model.inputs, 0)
    with torch.no_grad():
        eager = module(torch.from_numpy(image))
    wanted = eager["out"] if isinstance(eager, dict) else eager
    assert float(wanted.std()) > 0
    assert relative_difference(model(image)[0], wanted.numpy()) < 1e-5


def test_squeeze_and_excitation_has_one_spelling_everywhere() -> None:
    model = load("torchvision.models:mobilenet_v3_small", shapes={"": (1, 3, 64, 64)})
    wanted = "conv2d batch_norm hardswish relu mean hardsigmoid mul add reshape linear dropout"
    assert set(op_names(model)) == set(wanted.split())
    assert all(node.meta["origin"] for node in calls(model.module.graph))


def test_torchvision_tells_its_image_size() -> None:
    from torchvision import models

    from lvc.compiler.load.zoo import find_recipe

    assert find_recipe(models.inception_v3, {}).size == 299
    assert find_recipe(models.vit_h_14, {}).size == 224
    recipe = find_recipe(models.swin_v2_t, {"weights": "DEFAULT"})
    assert recipe.size == 256
    assert recipe.preprocessing is not None
    assert recipe.preprocessing.startswith("resize=260,interpolation=bicubic,crop=256,")
    assert recipe.labels is not None
    assert recipe.labels[0] == "tench"


@pytest.mark.parametrize(
    ("name", "file", "right"), [("resnet20", "resnet20-12fca82f.th", 182), ("resnet56", "resnet56-4bfd9763.th", 188)]
)
def test_trained_cifar_network_is_as_accurate_as_it_was(name: str, file: str, right: int, assets: Path) -> None:
    folder = assets / "cifar10"
    sprite = np.asarray(Image.open(folder / "cifar10_test2000.webp").convert("RGB"))
    tiles = sprite.reshape(40, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(2000, 32, 32, 3)[:200]
    labels = np.load(folder / "cifar10_test2000_labels.npz")["label"][:200]
    images = ((tiles / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2).astype(np.float32)

    model = load(f"{EXAMPLES}/cifar_resnet.py:{name}", weights=folder / file, shapes={"input": (200, 3, 32, 32)})
    assert not model.notes
    assert int((model(images)[0].argmax(1) == labels).sum()) == right


def test_mobilenet_with_weights_from_an_npz_file(assets: Path) -> None:
    weights = assets / "imagenet" / "mobilenet_v1_0.75_224_fp16.npz"
    model = load(f"{EXAMPLES}/mobilenet_v1.py:mobilenet_v1", weights=weights, arguments={"width": 0.75})
    assert model.inputs[0].spec.shape == (1, 3, 224, 224)
    assert op_names(model).count("clamp") == 27
