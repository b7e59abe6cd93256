"""Trained CIFAR-10 networks keep their accuracy when pruned on 400 calibration images, without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pruning_models import Images

from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.evaluation import evaluate
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

NETWORKS = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
BATCH = 50


def images(assets: Path, split: str, every: int = 1) -> Images:
    sheet = np.asarray(Image.open(assets / "cifar10" / f"cifar10_{split}.webp").convert("RGB"))
    rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
    tiles = sheet.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)[::every]
    mean, deviation = (np.array(v, np.float32).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    labels = np.load(assets / "cifar10" / f"cifar10_{split}_labels.npz")["label"][::every]
    return Images(((tiles / np.float32(255) - mean) / deviation).astype(np.float32), labels.tolist())


def network(assets: Path, name: str) -> Model:
    weights = str(assets / "cifar10" / WEIGHTS[name])
    return LoadRequest(f"{NETWORKS}:{name}", weights, shapes={"": (BATCH, 3, 32, 32)}).load()


def pruned(model: Model, assets: Path, options: str) -> tuple[Model, float]:
    """Return a model pruned on train400, and by what factor its MACs fell."""
    data = images(assets, "train400")
    used = Workspace(data={"calib": lambda: data, "judge": lambda: data}, threads=1)  # so that none is held out
    made, _ = Pipeline.parse(f"prune-channels{{{options}}}").run(model, used)
    return made, totals(layers(model)).macs / totals(layers(made)).macs


def accuracy(model: Model, data: Images) -> float:
    score = evaluate(model, data, BATCH)
    return score.top1 / score.labelled


def test_a_small_network_keeps_its_accuracy(assets: Path) -> None:
    model = network(assets, "resnet20")
    made, factor = pruned(model, assets, "macs=0.66666 images=100")
    test = images(assets, "test2000", every=8)
    assert factor == pytest.approx(1.5, abs=0.02)
    assert accuracy(model, test) - accuracy(made, test) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "least"), [(2.1, 0.86), (1.5, 0.915)])
def test_resnet56_without_training(assets: Path, wanted: float, least: float) -> None:
    made, factor = pruned(network(assets, "resnet56"), assets, f"macs={1 / wanted}")
    assert factor >= wanted
    assert accuracy(made, images(assets, "test2000")) >= least
