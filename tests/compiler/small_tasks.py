"""Small networks that detect and segment by the colour of places, as artefacts, and pictures for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import lvc
from lvc.compiler import container

SIDE = 32
PREPROCESS = f"letterbox={SIDE}@0,range=1"
NAMES = ("nothing", "red", "green", "blue")


class Spots(nn.Module):
    """Finds each primary colour in its quarter of the input: left above red, right above green, left below blue."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        half = SIDE // 2
        quarters = torch.tensor([[0, 0, half, half], [half, 0, SIDE, half], [0, half, half, SIDE]], dtype=torch.float32)
        parts = [image[0, 0, :half, :half], image[0, 1, :half, half:], image[0, 2, half:, :half]]
        scores = torch.stack([part.mean() for part in parts])
        order = torch.argsort(scores, descending=True, stable=True)
        return {"boxes": quarters[order], "scores": scores[order], "labels": torch.tensor([1, 2, 3])[order]}


class Colours(nn.Module):
    """Tells of each pixel which primary colour it has, or none."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([torch.full_like(image[:, :1], 0.5), image], 1)


def artefact(module: nn.Module, file: Path, preprocess: str = PREPROCESS) -> str:
    model = lvc.from_module(module, torch.rand(1, 3, SIDE, SIDE))
    model.preprocessing, model.labels = preprocess, NAMES
    container.write(lvc.compile(model, "O1", "reference"), file)
    return str(file)


def picture(file: Path, height: int = 40, width: int = 64) -> str:
    """A picture whose left half is red above and blue below, and whose right one is green above and grey below."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[: height // 2, : width // 2] = (250, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 200, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 160)
    Image.fromarray(pixels).save(file)
    return str(file)
