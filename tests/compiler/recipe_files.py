"""A folder with a small trained-like network, images for it, and a recipe of two stages that takes a second to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.writing import write_model

RECIPE = """\
target = "reference"

[model]
source = "net.lvc"
preprocess = "cifar10"

[data]
calib = "calib.npz"
test = "test.npz"

[[stage]]
name = "prune"
pipeline = "prune-channels{macs=0.8 steps=1 criterion=l1},O1"

[[stage]]
name = "quantise"
pipeline = "O1,insert-fake-quant,calibrate{images=16}"

[checks]
data = "test"
max-drop = 60

[report]
latency = false
"""


class Small(nn.Module):
    """Two convolutions that share nothing, and four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.second = nn.Conv2d(16, 16, 3, 2, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(image))))
        return self.head(x.mean((2, 3)) * 20)


def small() -> Model:
    torch.manual_seed(0)
    return from_module(Small(), torch.zeros(1, 3, 16, 16), name="net")


def images(count: int, seed: int) -> np.ndarray:
    """Pictures of blocks of colour, which a network tells apart more easily than noise."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def write_folder(folder: Path) -> None:
    """Write the network, ``calib.npz`` without labels, ``test.npz`` with those that the network gives, the recipe."""
    from lvc.compiler.cli.pipeline_options import open_data_set

    model = small()
    write_model(model, folder / "net.lvc")
    np.savez(folder / "calib.npz", x=images(40, 1))
    np.savez(folder / "test.npz", x=(tests := images(30, 2)))
    chosen = [int(model(array)[0].argmax()) for array, _ in open_data_set(str(folder / "test.npz"), model, "cifar10")]
    np.savez(folder / "test.npz", x=tests, y=np.array(chosen))
    (folder / "r.toml").write_text(RECIPE)
