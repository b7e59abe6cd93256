"""Random inputs that a seed decides."""

from __future__ import annotations

import numpy as np

from lvc.compiler.data.samples import numpy_dtype
from lvc.compiler.ir.signature import Value


def seeded_inputs(inputs: tuple[Value, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Make one input set for a signature: standard normal for floats, small integers for the rest.

    `UsageError` for an input whose type NumPy does not have.
    """
    random = np.random.default_rng(seed)
    return tuple(_drawn(value, random) for value in inputs)


def _drawn(value: Value, random: np.random.Generator) -> np.ndarray:
    shape, dtype = value.spec.shape, numpy_dtype(value)
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape), np.float32).astype(dtype)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)
