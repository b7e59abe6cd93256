"""Small networks with known weights, and data for them, for tests of pruning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from lvc.compiler.ir.graph import store
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.workspace import Workspace


class Chain(nn.Module):
    """Two convolutions of 1x1 with batch normalisation and ReLU between; scores are means over positions."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor | None = None) -> None:
        super().__init__()
        made, read = first.shape
        self.first = nn.Conv2d(read, made, 1, bias=False)
        self.norm = nn.BatchNorm2d(made)
        self.second = nn.Conv2d(made, 3, 1)
        self.first.weight.data = first.float().view(made, read, 1, 1)
        if second is not None:
            self.second.weight.data = second.float().view(3, made, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.norm(self.first(image)))).mean((2, 3))


class Residual(nn.Module):
    """A stem, two residual blocks, and a classifier; every fourth filter of the inner layers is one of before."""

    def __init__(self, width: int = 16, *, redundant: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.inner = nn.ModuleList(nn.Conv2d(width, 2 * width, 3, padding=1) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(2 * width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(width, 4)
        if redundant:
            for layer in self.inner:
                layer.weight.data[width:] = layer.weight.data[:width] * 0.5
                layer.bias.data[width:] = layer.bias.data[:width] * 0.5

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(image))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = torch.relu(x + outer(torch.relu(inner(x))))
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True)
class Images:
    """A data set out of an array and labels."""

    x: np.ndarray
    labels: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        return ((self.x[place : place + 1], label) for place, label in enumerate(self.labels))


def chain(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]] | None = None) -> Model:
    torch.manual_seed(0)
    made = Chain(torch.tensor(first), None if second is None else torch.tensor(second))
    model = _traced_chain(*torch.tensor(first).shape).copy()
    for name, value in made.named_parameters():
        store(model.module, name, value.detach())
    return model


@cache
def _traced_chain(made: int, read: int) -> Model:
    torch.manual_seed(0)
    return from_module(Chain(torch.zeros(made, read)).eval(), torch.zeros(2, read, 4, 4), name="chain")


@cache
def residual(*, redundant: bool = False) -> Model:
    """The same model each time: pipelines leave it as it is."""
    torch.manual_seed(0)
    return from_module(Residual(redundant=redundant).eval(), torch.zeros(2, 3, 8, 8), name="residual")


def workspace(
    model: Model, images: int = 16, *, labelled: bool = True, classes: int = 3, low: float = -2.0
) -> Workspace:
    """A workspace whose data set 'calib' has uniform random images for a model."""
    random = np.random.default_rng(0)
    x = random.uniform(low, 2, (images, *model.inputs[0].spec.shape[1:])).astype(np.float32)
    labels = [place % classes if labelled else None for place in range(images)]
    return Workspace(data={"calib": lambda: Images(x, labels)}, threads=1)
