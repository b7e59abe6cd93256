"""Scales that follow the data: each row of a tensor gets 8 bits and a scale of its own, found as the model runs.

As in `integer` the PyTorch code is the exact meaning, in single precision step by step, and kernels match
it bit for bit. Neither is defined for NaN.
"""

from __future__ import annotations

import torch

from lvc.compiler.ir.operators.library import operator, operators_of

LARGEST = 127
LEAST = 2.0**-100
"""What the largest magnitude of a row counts as at least, so that its scale has an inverse."""

SHARE = float(torch.tensor(1 / LARGEST, dtype=torch.float32))
"""The single-precision number nearest to 1/127."""


@operator("row_scale(Tensor x) -> Tensor")
def row_scale(x: torch.Tensor) -> torch.Tensor:
    """``max(max |x|, 2^-100) * (1/127)`` of each row, ``f32[..., 1]`` for ``f32[..., n]``."""
    _demand(x)
    return x.abs().amax(-1, keepdim=True).clamp(min=LEAST) * SHARE


@operator("quantise_rows(Tensor x, Tensor scale) -> Tensor")
def quantise_rows(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``round(x * (1 / scale))`` limited to [-127, 127], ``i8``; rounds half to even."""
    _demand(x, scale)
    if scale.shape != (*x.shape[:-1], 1):
        raise TypeError(f"scales {tuple(scale.shape)} are not one for each row of {tuple(x.shape)}")
    return (x * (1 / scale)).round().clamp(-LARGEST, LARGEST).to(torch.int8)


def _demand(*tensors: torch.Tensor) -> None:
    if any(tensor.dtype != torch.float32 or not tensor.ndim for tensor in tensors):
        raise TypeError("rows are of float32")


OPERATORS = operators_of(__name__)
