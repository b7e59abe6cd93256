"""Pruning of the CIFAR-10 ResNet-56 by every criterion, without training, beside Torch-Pruning on the same data.

    python tools/compare_pruning.py ../shared/assets --factors 2.1,1.5

Calibration sees train400 alone; accuracy is that on test2000. Each line prints as it is measured: a criterion, how
groups compare (``--rankings``), what follows the removal (nothing, batch norms estimated anew, or weights
reconstructed by least squares), the factor by which MACs fell, the accuracy, and the processor time. Torch-Pruning
prunes the inner channels of each block, for across the padded shortcut it removes wrong ones, and has its batch norms
estimated anew as ours have. It is an optional peer: ``pip install torch-pruning``.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lvc.compiler.driver import LoadRequest
from lvc.compiler.evaluation import evaluate
from lvc.compiler.inspection import layers, totals
from lvc.compiler.model import Model
from lvc.compiler.pipeline import Pipeline
from lvc.compiler.workspace import Workspace
from lvc.passes.pruning.criterion import CRITERIA

BATCH = 50
NETWORK = Path(__file__).parents[1] / "examples" / "cifar_resnet.py"
WEIGHTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
AFTERWARDS = {
    "nothing": "reconstruct=false recalibrate=false",
    "recalibrate": "reconstruct=false recalibrate=true",
    "reconstruct": "reconstruct=true recalibrate=false",
}


@dataclass(frozen=True)
class Images:
    """Images in memory as a data set: ``x`` is ``f32[N,3,32,32]``, normalised."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def read(cls, assets: Path, split: str) -> Images:
        """Cut a sheet of 32x32 tiles, images in rows, into images."""
        sheet = np.asarray(Image.open(assets / "cifar10" / f"cifar10_{split}.webp").convert("RGB"))
        rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
        tiles = sheet.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        labels = np.load(assets / "cifar10" / f"cifar10_{split}_labels.npz")["label"]
        mean = np.array([0.485, 0.456, 0.406], np.float32)
        deviation = np.array([0.229, 0.224, 0.225], np.float32)
        x = ((tiles / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
        return cls(np.ascontiguousarray(x, np.float32), labels)

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        return ((self.x[place : place + 1], int(self.y[place])) for place in range(len(self.x)))

    def spread(self, count: int) -> Images:
        """Every so-manieth image, so that each class has its share."""
        every = max(1, len(self) // count)
        return Images(self.x[::every], self.y[::every])


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    calibration, test = Images.read(options.assets, "train400"), Images.read(options.assets, "test2000")
    test = test.spread(options.images)
    network = _load(options.network, options.assets)
    full = totals(layers(network)).macs
    print(f"{options.network}: {full / BATCH / 1e6:.1f} M MACs, accuracy {_accuracy(network, test):.2%}", flush=True)
    for factor in options.factors:
        if importlib.util.find_spec("torch_pruning") and not options.without_peer:
            _race_torch_pruning(options, factor, calibration, test)
        for criterion, ranking, afterwards in product(options.criteria, options.rankings, options.afterwards):
            settings = f"macs={1 / factor:.6f} criterion={criterion} ranking={ranking} {AFTERWARDS[afterwards]}"
            pipeline = Pipeline.parse(f"prune-channels{{{settings}}}")
            started = time.process_time()
            pruned, _ = pipeline.run(network, Workspace(data={"calib": lambda: calibration}, threads=1))
            seconds = time.process_time() - started
            fallen = full / totals(layers(pruned)).macs
            _line(f"{criterion}, {ranking}, {afterwards}", fallen, _accuracy(pruned, test), seconds)


def _line(name: str, factor: float, accuracy: float, seconds: float) -> None:
    print(f"{name:<48} {factor:5.3f}x fewer MACs  {accuracy:7.2%}  {seconds:6.1f} s", flush=True)


def _accuracy(model: Model, test: Images) -> float:
    score = evaluate(model, test, BATCH)
    return score.top1 / score.labelled


def _load(network: str, assets: Path) -> Model:
    shapes = {"": (BATCH, 3, 32, 32)}
    return LoadRequest(f"{NETWORK}:{network}", str(assets / "cifar10" / WEIGHTS[network]), shapes=shapes).load()


def _race_torch_pruning(options: argparse.Namespace, factor: float, calibration: Images, test: Images) -> None:
    """Prune the inner channels of each block by Torch-Pruning's magnitudes, in each layer and over all of them."""
    import torch_pruning

    for ranking in ("layer", "global"):
        for power in (1, 2):
            started = time.process_time()
            module = _module(options)
            pruned = _torch_pruned(torch_pruning, module, factor, power, ranking == "global")
            _estimate_batch_norms(module, calibration)
            seconds = time.process_time() - started
            model = Model.from_module(module, torch.zeros(BATCH, 3, 32, 32))
            name = f"torch-pruning l{power}, {ranking}, recalibrate"
            _line(name, pruned, _accuracy(model, test), seconds)


def _module(options: argparse.Namespace) -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("cifar_resnet", NETWORK)
    assert spec
    assert spec.loader
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    module: torch.nn.Module = getattr(code, options.network)()
    path = options.assets / "cifar10" / WEIGHTS[options.network]
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    module.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return module.eval()


def _torch_pruned(torch_pruning: Any, module: torch.nn.Module, factor: float, power: int, everywhere: bool) -> float:
    """Raise the ratio until MACs have fallen by the factor; return how far they fell."""
    inner = [layer for name, layer in module.named_modules() if name.startswith("layer") and name.endswith("conv1")]
    others = [layer for layer in module.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))]
    example = torch.zeros(1, 3, 32, 32)
    full, _ = torch_pruning.utils.count_ops_and_params(module, example)
    steps = 100
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=power),
        global_pruning=everywhere,
        pruning_ratio=1.0,
        max_pruning_ratio=0.9,
        iterative_steps=steps,
        ignored_layers=[layer for layer in others if layer not in inner],
    )
    for _ in range(steps):
        now, _ = torch_pruning.utils.count_ops_and_params(module, example)
        if full / now >= factor:
            break
        pruner.step()
    return float(full / now)


@torch.no_grad()
def _estimate_batch_norms(module: torch.nn.Module, calibration: Images) -> None:
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    module(torch.from_numpy(calibration.x))
    module.eval()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--network", choices=WEIGHTS, default="resnet56")
    parser.add_argument("--factors", type=_numbers, default=[2.1, 1.5])
    parser.add_argument("--criteria", type=_words, default=CRITERIA.names())
    parser.add_argument("--rankings", type=_words, default=["layer", "sensitivity"])
    parser.add_argument("--afterwards", type=_words, default=list(AFTERWARDS))
    parser.add_argument("--images", type=int, default=2000, help="how many of the test images")
    parser.add_argument("--without-peer", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
