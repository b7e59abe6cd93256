"""Time a step of training beside plain PyTorch: the same network, images, batch and optimiser, in turns.

    python tools/training_speed.py --weights resnet20.th --data cifar/fit.npz --threads 2

Plain PyTorch is the network as its author wrote it, trained in float32 by torch.optim.SGD on batches that torchvision's
transforms crop and flip. lvc trains the loaded graph, by `finetune` in float32 and as it does by default, and with fake
quantisation of 8 bits. Each counts with the median of its rounds; images are read and augmented within the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms import v2

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.sources import open_data
from lvc.compiler.ir.model import Model
from lvc.compiler.load import load
from lvc.compiler.load.user_code import import_place
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import duration, table
from lvc.passes.finetune import Finetune

_SOURCE = "examples/cifar_resnet.py"
_BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path, help="a .npz file of CIFAR-10, see fetch_cifar10.py")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(f"{_SOURCE}:{options.network}", weights=options.weights, shapes={"": (1, 3, 32, 32)})
    model.preprocessing = "cifar10"
    space = Workspace(
        data={name: lambda: open_data(str(options.data), Preprocess.parse("cifar10"), model.inputs) for name in _SETS},
        threads=options.threads,
    )
    quantised, _ = Pipeline.parse("O1,insert-fake-quant,calibrate{images=64}").run(model, space)
    steps = {
        "PyTorch, float32": _plain_step(options.network, options.data),
        "lvc, float32": _step(model, space, "fp32"),
        "lvc": _step(model, space, "auto"),
        "lvc, 8-bit fake quantisation": _step(quantised, space, "auto"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step(turn)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    first = next(iter(medians.values()))
    rows = [(name, duration(found), f"{found / first:.2f}") for name, found in medians.items()]
    print(table((f"{options.network}, {_BATCH} images a step", "time", "ratio"), rows, "lrr"))


_SETS = ("train", "calib")


def _plain_step(network: str, data: Path) -> Callable[[int], object]:
    """A step of the network in plain PyTorch."""
    module = getattr(import_place(_SOURCE), network)().train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9, nesterov=True, weight_decay=5e-4)
    with np.load(data) as arrays:
        images, labels = torch.from_numpy(arrays["x"]).movedim(-1, 1), torch.from_numpy(arrays["y"]).long()
    augment = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    normalise = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )

    def step(turn: int) -> object:
        rows = torch.randint(len(images), (_BATCH,)).tolist()
        batch = normalise(torch.stack([augment(images[row]) for row in rows]))
        optimiser.zero_grad()
        loss = functional.cross_entropy(module(batch), labels[rows])
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def _step(model: Model, space: Workspace, precision: str) -> Callable[[int], object]:
    """A step of `finetune` on a copy of a model."""
    training = Finetune(lr=0.001, batch=_BATCH, precision=precision).prepare(model.copy(), space, Outcome())  # type: ignore[arg-type]
    training.form.lay_out(training.mode.layout)
    return training.step


if __name__ == "__main__":
    main()
