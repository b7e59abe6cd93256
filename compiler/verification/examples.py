"""The inputs on which a model is verified, and what it makes of them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.signature import Value

_COARSE = 8


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
    """Seeded normal numbers; if it shall be thorough, inputs that look like images as well."""
    found = [Example(model, seeded_inputs(model.inputs, seed), "seeded inputs")]
    if thorough:
        found.append(Example(model, image_inputs(model.inputs, seed), "inputs like images"))
    return found


def image_inputs(inputs: Sequence[Value], seed: int) -> tuple[np.ndarray, ...]:
    """Smooth surfaces with noise from 0 to 1 for floats, from 0 to 255 for bytes; other types as `seeded_inputs`."""
    random = np.random.default_rng(seed)
    return tuple(
        _image(value, random) if _is_image(value) else plain
        for value, plain in zip(inputs, seeded_inputs(tuple(inputs), seed), strict=True)
    )


def _is_image(value: Value) -> bool:
    return value.spec.dtype.is_floating_point or value.spec.dtype is torch.uint8


def _image(value: Value, random: np.random.Generator) -> np.ndarray:
    shape = value.spec.shape
    coarse = torch.from_numpy(random.uniform(0.1, 0.9, [min(size, _COARSE) for size in shape]))
    for dim, size in enumerate(shape):
        places = torch.linspace(0, coarse.shape[dim] - 1, size).round().long() if coarse.shape[dim] else torch.arange(0)
        coarse = coarse.index_select(dim, places)
    noisy = (coarse.numpy() + random.uniform(-0.1, 0.1, shape)).clip(0, 1)
    if value.spec.dtype is torch.uint8:
        return np.asarray(np.round(noisy * 255), np.uint8)
    return np.asarray(torch.from_numpy(noisy).to(value.spec.dtype).numpy())
