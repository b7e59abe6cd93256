"""Losses on arrays, learnt from photographs: several classes an image, and a class for each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_models import weights

from lvc.compiler.data import open_data
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

SIDE, IGNORED = 32, 255
PERSON = 0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photographs(assets: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Photographs ``uint8[N,32,32,3]``, and of each its boxes, rows of class, centre, width and height."""
    files = sorted((assets / "coco" / "images").glob("*.jpg"))
    images = [np.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in files]
    labels = [assets / "coco" / "labels" / f"{file.stem}.txt" for file in files]
    boxes = [
        np.array([line.split() for line in label.read_text().splitlines()] if label.exists() else [], float)
        for label in labels
    ]
    return np.stack(images), [found.reshape(-1, 5) for found in boxes]


def convolutions(outputs: int, *, pooled: bool) -> Model:
    """Scores of a picture of 32x32, for all of it or for every pixel."""
    pooling = f"%m = mean(%c3, [2, 3])\n%y = reshape(%m, [1, {outputs}])" if pooled else ""
    model = parse_model(f"""
        model small(x: f32[1,3,32,32])
          @w1 : f32[16,3,3,3]
          @b1 : f32[16]
          @w2 : f32[16,16,3,3]
          @b2 : f32[16]
          @w3 : f32[{outputs},16,3,3]
          @b3 : f32[{outputs}]
          %c1 = conv2d(%x, @w1, @b1, [1, 1], [1, 1])
          %r1 = relu(%c1)
          %c2 = conv2d(%r1, @w2, @b2, [1, 1], [2, 2], [2, 2])
          %r2 = relu(%c2)
          %c3 = conv2d(%r2, @w3, @b3, [1, 1], [1, 1])
          {pooling}
          return scores=%{"y" if pooled else "c3"}
    """)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
            if value.ndim == 1:
                value.zero_()
    return model


def trained(model: Model, text: str, x: np.ndarray, y: np.ndarray, folder: Path) -> tuple[Model, list[float]]:
    """Train on the photographs; return the model and the losses, an entry an epoch."""
    np.savez(folder / "train.npz", x=x, y=y)
    data = open_data(str(folder / "train.npz"), Preprocess.parse("cifar10"), model.inputs, ())
    made, (step,) = Pipeline.parse(text).run(model, Workspace(data={"train": lambda: data}))
    (table,) = step.outcome.tables
    return made, [float(row[2]) for row in table.rows]


def test_several_classes_an_image_are_learnt(photographs: tuple[np.ndarray, list[np.ndarray]], tmp_path: Path) -> None:
    """Whether there is a person, and whether something else: below the entropy of how often there is one."""
    images, boxes = photographs
    aims = np.array([[(found[:, 0] == PERSON).any(), (found[:, 0] > 20).any()] for found in boxes], np.float32)
    often = aims.mean(0)
    entropy = float(-(often * np.log(often) + (1 - often) * np.log(1 - often)).mean())
    text = "finetune{epochs=60 batch=32 lr=0.02 optimiser=adamw loss=binary-cross-entropy augment=flip precision=fp32}"
    _, losses = trained(convolutions(2, pooled=True), text, images, aims, tmp_path)
    assert losses[-1] < 0.95 * entropy
    assert losses[-1] < losses[0]


def masks_of(boxes: list[np.ndarray]) -> np.ndarray:
    """1 within the boxes of persons, 0 outside of all boxes, ignored within other boxes: ``uint8[N,32,32]``."""
    masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    for mask, found in zip(masks, boxes, strict=True):
        for kind, x, y, width, height in sorted(found.tolist(), key=lambda box: box[0] == PERSON):
            left, right = (int(np.clip(SIDE * (x + side * width / 2), 0, SIDE)) for side in (-1, 1))
            top, bottom = (int(np.clip(SIDE * (y + side * height / 2), 0, SIDE)) for side in (-1, 1))
            mask[top:bottom, left:right] = 1 if kind == PERSON else IGNORED
    return masks


def test_classes_of_pixels_are_learnt_and_ignored_pixels_do_not_count(
    photographs: tuple[np.ndarray, list[np.ndarray]], tmp_path: Path
) -> None:
    images, boxes = photographs
    masks = masks_of(boxes)
    known = masks != IGNORED
    assert 0.05 < np.mean(~known) < 0.8
    often = float(np.mean(masks[known] == 1))
    entropy = -(often * np.log(often) + (1 - often) * np.log(1 - often))
    options = "batch=32 lr=0.02 optimiser=adamw augment=flip precision=fp32"
    text = f"finetune{{epochs=60 loss=segmentation {options}}}"
    _, losses = trained(convolutions(2, pooled=False), text, images, masks, tmp_path)
    assert losses[-1] < 0.97 * entropy

    others = np.where(known, masks, 7).astype(np.uint8)  # another number for what does not count
    found = []
    for loss, aims in (("segmentation", masks), ('"segmentation{ignore=7}"', others)):
        text = f"finetune{{steps=4 loss={loss} {options}}}"
        found.append(weights(trained(convolutions(2, pooled=False), text, images, aims, tmp_path)[0]))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
