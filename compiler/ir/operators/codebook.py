"""Weights of a codebook, simulated: `lvc::fake_quantize_codebook` moves each to the nearest value that there is.

That is an entry of the codebook, which all share, times the scale of its group: the elements of an output channel fall
into as many groups of neighbours as ``scale`` has columns. ATen's fake quantisation is the case of integers.
"""

from __future__ import annotations

import torch

from lvc.compiler.ir.operators.library import operator


def nearest(rows: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return for each element of ``f32[rows,n]`` the place of the nearest value times the row's scale, ``i64``."""
    middles = (values[1:] + values[:-1]) / 2
    return torch.bucketize((rows / scale[:, None]).contiguous(), middles)


def fit_int8(values: torch.Tensor) -> bool:
    """Whether values in rising order are integers that int8 holds."""
    return values.equal(values.round()) and float(values[0]) >= -128 and float(values[-1]) <= 127


def _fake_quantize_codebook(x: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The nearest values; ``x`` is ``f32[O,...]``, ``values`` ``f32[n]`` in rising order, ``scale`` ``f32[O,groups]``.

    The gradient passes straight through, but not to what lies outside the least and the greatest value; entries and
    scales get that of all elements which they stand for, as in Han et al. 2016, "Deep compression", section 3.
    """
    rows, steps = x.reshape(scale.numel(), -1), scale.reshape(-1, 1)
    found = values[nearest(rows.detach(), values.detach(), scale.detach().flatten())] * steps
    inside = (rows >= values[0] * steps) & (rows <= values[-1] * steps)
    straight = torch.where(inside, rows, rows.detach())
    return (found + (straight - straight.detach())).reshape(x.shape)


FAKE_QUANTIZE_CODEBOOK = operator(
    "fake_quantize_codebook(Tensor self, Tensor values, Tensor scale) -> Tensor", differentiable=True
)(_fake_quantize_codebook)
