"""Images to calibrate on where only speed is measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lvc.compiler.ir.model import Value
from lvc.compiler.pipeline.observers import seeded_inputs

IMAGES = 32


def random_images(inputs: tuple[Value, ...]) -> Iterator[tuple[np.ndarray, ...]]:
    """The same few input sets for everybody, normally distributed."""
    return (seeded_inputs(inputs, seed) for seed in range(1, IMAGES + 1))
