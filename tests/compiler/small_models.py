"""Small networks for tests: traced models, and artefacts of the reference backend."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.driver import compile_and_report
from lvc.compiler.ir.model import Model
from lvc.compiler.load import from_module


class Shades(nn.Module):
    """Tells apart images by their mean shade: class ``i`` of ``classes`` scores highest near ``i``."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.arange(classes, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -((image.mean((1, 2, 3))[:, None] - self.centres) ** 2)


class Convolutions(nn.Module):
    """One of each contraction, and a weight that two of them share."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.shared = nn.Linear(16, 16)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.up(torch.relu(self.depthwise(self.first(image))))
        y = self.shared(self.shared(x))
        return y, y @ y.transpose(2, 3)


def shades(classes: int = 6, batch: int = 1) -> Model:
    return from_module(Shades(classes), torch.zeros(batch, 3, 8, 8), name="shades")


def convolutions() -> Model:
    torch.manual_seed(0)
    return from_module(Convolutions(), torch.zeros(1, 4, 16, 16), name="convolutions")


def build(model: Model, path: Path | None = None) -> Artefact:
    """Compile for the reference backend; write the artefact if there is a path."""
    artefact, _ = compile_and_report(model, "O1", "reference")
    if path:
        container.write(artefact, path)
    return artefact
