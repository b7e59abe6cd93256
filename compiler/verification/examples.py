"""The inputs on which a model is verified, and what it makes of them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.task import FIND_OBJECTS, task_of_model

_COARSE = 8
_CHANNELS = (1, 3)
_OBJECTS = 12
_HALF_SIDES = (0.03, 0.25)  # of those of the image


@dataclass(frozen=True)
class Example:
    """One set of inputs, described for messages, and what the model as it was loaded computes from them."""

    model: Model
    inputs: tuple[np.ndarray, ...]
    text: str

    @cached_property
    def outputs(self) -> tuple[np.ndarray, ...]:
        return self.model(*self.inputs)


def examples_of(model: Model, seed: int, *, thorough: bool) -> list[Example]:
    """Seeded normal numbers; of a detector, which finds little in noise, inputs that look like images; both if it shall
    be thorough."""
    detects = task_of_model(model) in FIND_OBJECTS
    images = image_inputs(model.inputs, seed, model.preprocessing, has_objects=detects)
    of_images = Example(model, images, "inputs like images")
    numbers = Example(model, seeded_inputs(model.inputs, seed), "seeded inputs")
    if thorough:
        return [numbers, of_images]
    return [of_images if detects else numbers]


def image_inputs(
    inputs: Sequence[Value], seed: int, preprocessing: str | None = None, *, has_objects: bool = False
) -> tuple[np.ndarray, ...]:
    """Smooth surfaces with noise, or with shapes of other colours before them if an image ``has_objects``.

    From 0 to 255 for bytes; for floats from 0 to 1, or as the preprocessing makes them of such bytes; other types as
    `seeded_inputs`.
    """
    random = np.random.default_rng(seed)
    found = [
        _image(value, random, has_objects=has_objects) if _is_image(value) else plain
        for value, plain in zip(inputs, seeded_inputs(tuple(inputs), seed), strict=True)
    ]
    return tuple(_prepared(image, preprocessing) if preprocessing else image for image in found)


def _draw_objects(images: np.ndarray, random: np.random.Generator) -> None:
    """Draw ellipses and rectangles of plain colours onto images ``[N,C,H,W]``, with less contrast behind them."""
    images[:] = images / 2 + 0.25
    _, channels, height, width = images.shape
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    for image in images:
        for place in range(_OBJECTS):
            y, x = random.uniform(0, 1, 2)
            high, wide = random.uniform(*_HALF_SIDES, 2)
            rows, columns = np.abs(down - y) / high, np.abs(across - x) / wide
            inside = rows**2 + columns**2 < 1 if place % 2 else (rows < 1) & (columns < 1)
            image[:, inside] = random.uniform(0, 1, (channels, 1))


def _prepared(image: np.ndarray, preprocessing: str) -> np.ndarray:
    """An image from 0 to 1 as the preprocessing makes it of bytes, where it has the channels for that."""
    preprocess = Preprocess.parse(preprocessing)
    if image.dtype != np.float32 or image.ndim != 4 or image.shape[1] != preprocess.channels:
        return image
    return preprocess.to_planes(np.round(np.moveaxis(image, 1, -1) * 255).astype(np.uint8))


def _is_image(value: Value) -> bool:
    return value.spec.dtype.is_floating_point or value.spec.dtype is torch.uint8


def _image(value: Value, random: np.random.Generator, *, has_objects: bool) -> np.ndarray:
    shape = value.spec.shape
    coarse = torch.from_numpy(random.uniform(0.1, 0.9, [min(size, _COARSE) for size in shape]))
    for dim, size in enumerate(shape):
        places = torch.linspace(0, coarse.shape[dim] - 1, size).round().long() if coarse.shape[dim] else torch.arange(0)
        coarse = coarse.index_select(dim, places)
    noisy = (coarse.numpy() + random.uniform(-0.1, 0.1, shape)).clip(0, 1)
    if has_objects and len(shape) == 4:
        is_last = shape[3] in _CHANNELS and shape[1] not in _CHANNELS
        _draw_objects(np.moveaxis(noisy, 3, 1) if is_last else noisy, random)
    if value.spec.dtype is torch.uint8:
        return np.asarray(np.round(noisy * 255), np.uint8)
    return np.asarray(torch.from_numpy(noisy).to(value.spec.dtype).numpy())
