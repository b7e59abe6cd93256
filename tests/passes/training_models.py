"""A network and images that can be learnt in a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import DataSet, Workspace

CLASSES = 4


def network(width: int = 8, classes: int = CLASSES, *, normalised: bool = True) -> Model:
    """Scores of classes for a picture of 8x8: two convolutions, with batch normalisation and dropout or not."""
    behind = "%n = batch_norm(%c, @g, @s, @m, @v, False, 0.1, 1e-05, True)" if normalised else "%n = relu(%c)"
    stored = f"@g : f32[{width}]\n@s : f32[{width}]\n@m : f32[{width}]\n@v : f32[{width}]\n" if normalised else ""
    last = "%d = dropout(%p, 0.1, False)" if normalised else "%d = reshape(%p, [1, 8])"
    model = parse_model(f"""
        model small(x: f32[1,3,8,8])
          @w1 : f32[{width},3,3,3]
          {stored}
          @w2 : f32[8,{width},3,3]
          @w3 : f32[{classes},8]
          @b3 : f32[{classes}]
          %c = conv2d(%x, @w1, None, [1, 1], [1, 1])
          {behind}
          %r = relu(%n)
          %c2 = conv2d(%r, @w2, None, [2, 2], [1, 1])
          %r2 = relu(%c2)
          %a = mean(%r2, [2, 3])
          %p = reshape(%a, [1, 8])
          {last}
          %y = linear(%d, @w3, @b3)
          return scores=%y
    """)
    generator = torch.Generator().manual_seed(1)
    for name, value in model.module.named_parameters():
        with torch.no_grad():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if value.ndim > 1 else 0.1))
            if name in ("g", "v"):
                value.fill_(1.0)
    return model


@dataclass(frozen=True)
class Pictures:
    """Noise whose mean colour tells the class; ready inputs, with labels or without."""

    count: int
    labelled: bool = True
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        random = np.random.default_rng(self.seed)
        for index in range(self.count):
            label = index % CLASSES
            image = random.standard_normal((1, 3, 8, 8)).astype(np.float32)
            image += np.array([(label & 1) - 0.5, (label >> 1) - 0.5, 0], np.float32).reshape(3, 1, 1)
            yield image, label if self.labelled else None


def workspace(folder: Path | None = None, seed: int = 0, **data: DataSet) -> Workspace:
    """A workspace with these data sets, or with 128 pictures named 'train'."""
    sets = data or {"train": Pictures(128)}
    return Workspace(
        data={name: (lambda given=given: given) for name, given in sets.items()}, seed=seed, checkpoints=folder
    )


def weights(model: Model) -> dict[str, torch.Tensor]:
    """Copies of all stored tensors."""
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def trained(text: str, model: Model | None = None, space: Workspace | None = None) -> tuple[Model, list[str]]:
    """The network, or another model, after a pipeline, and the notes of its last pass."""
    made, steps = Pipeline.parse(text).run(model or network(), space or workspace())
    return made, steps[-1].outcome.notes
