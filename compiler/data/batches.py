"""Which signature a data set feeds, and its samples in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.ir.signature import Value


def takes_data(inputs: tuple[Value, ...]) -> bool:
    """Whether a data set can feed a signature: it has one input, with a batch dimension."""
    return len(inputs) == 1 and bool(inputs[0].spec.shape)


def fed_input(inputs: tuple[Value, ...]) -> Value:
    """Return the one input of a signature that a data set feeds; `UsageError` if it has several, or a scalar."""
    if len(inputs) != 1:
        names = ", ".join(map(str, inputs))
        raise UsageError(f"a data set feeds a model of one input, not {len(inputs)}", why=f"inputs are: {names}")
    if not inputs[0].spec.shape:
        raise UsageError(f"input '{inputs[0].name}' is a scalar", why="a data set feeds inputs with a batch dimension")
    return inputs[0]


def batches(
    samples: Iterable[tuple[np.ndarray, int | None]], size: int, fill: int | None = None
) -> Iterator[tuple[np.ndarray, list[int | None]]]:
    """Join samples of batch 1 into batches of ``size``; the last is filled with copies of its last sample.

    With ``fill`` the last batch is only filled up to a multiple of it. There are as many labels as true samples.
    """
    inputs: list[np.ndarray] = []
    labels: list[int | None] = []
    for array, label in samples:
        inputs.append(array)
        labels.append(label)
        if len(inputs) == size:
            yield _join(inputs, size), labels
            inputs, labels = [], []
    if inputs:
        yield _join(inputs, -(-len(inputs) // (fill or size)) * (fill or size)), labels


def _join(inputs: list[np.ndarray], size: int) -> np.ndarray:
    return inputs[0] if size == 1 else np.concatenate(inputs + inputs[-1:] * (size - len(inputs)))
