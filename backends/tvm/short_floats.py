"""The floating-point types that are shorter than float32, as kernels name them: bfloat16, by its bits, and float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tvm import tirx

from lvc.backends.tvm import bfloat16

Expr = Any  # a TIR expression; TVM's own types are not annotated

FLOAT16 = "float16"
SHORT = (bfloat16.BITS, FLOAT16)


def is_short(dtype: str) -> bool:
    """Whether elements of a type, or vectors of them, are read as float32."""
    return dtype.partition("x")[0] in SHORT


def widen(value: Expr) -> Expr:
    """The float32 of the same value."""
    dtype = str(value.ty.dtype)
    return tirx.Cast(dtype.replace(FLOAT16, "float32"), value) if FLOAT16 in dtype else bfloat16.widen(value)


def as_float32(value: Expr) -> Expr:
    """A value of a shorter type widened, and a float32 as it is."""
    return widen(value) if is_short(str(value.ty.dtype)) else value


def narrow(value: Expr, dtype: str) -> Expr:
    """A float32 in a shorter type, rounded to nearest, ties to even; beyond the range of float16 it is infinite."""
    return tirx.Cast(FLOAT16, value) if dtype == FLOAT16 else bfloat16.narrow(value)


def widened_values(values: np.ndarray) -> np.ndarray:
    """An array of a shorter type, as kernels store it, as float32."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return np.asarray(torch.from_numpy(values).view(torch.bfloat16).float().numpy())
