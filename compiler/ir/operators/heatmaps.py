"""Where heat maps are largest once they are resized, each to a size of its own that is computed."""

from __future__ import annotations

import torch

from lvc.compiler.ir.operators.library import operator, operators_of

LONGEST = 1 << 14
"""The most rows or columns that a map is resized to."""

A = -0.75
"""The constant of PyTorch's cubic convolution."""


@operator("peaks(Tensor maps, Tensor sizes) -> Tensor")
def peaks(maps: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """The largest element of each of ``maps [n, k, h, w]``, resized to ``sizes i64[n, 2]``: ``[n, k, 3]``, its row, its
    column and its value.

    It is resized as ``F.interpolate(mode="bicubic")`` does, rows first. Of equal elements it is the first one, and NaN
    is the greatest, as for ``argmax``. A map has NaN in all three places where a side would have less than one element,
    or more than `LONGEST`.
    """
    if maps.ndim != 4 or not maps.is_floating_point() or 0 in maps.shape:
        raise TypeError(f"{tuple(maps.shape)} of {maps.dtype} are no heat maps")
    if sizes.shape != (maps.shape[0], 2) or sizes.dtype != torch.int64:
        raise TypeError(f"{tuple(sizes.shape)} of {sizes.dtype} are no sizes for {tuple(maps.shape)}")
    found = maps.new_full((*maps.shape[:2], 3), torch.nan)
    if found.is_meta:
        return found
    for one, (height, width), place in zip(maps, sizes.tolist(), found, strict=True):
        if min(height, width) >= 1 and max(height, width) <= LONGEST:
            values, flat = _resized(one, height, width).flatten(1).max(1)
            place.copy_(torch.stack([flat // width, flat % width, values], 1))
    return found


def _resized(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    for size in (width, height):
        maps = _along_last(maps, size).transpose(1, 2)
    return maps


def _along_last(x: torch.Tensor, size: int) -> torch.Tensor:
    length = x.shape[-1]
    scale = torch.tensor(float(length), dtype=x.dtype) / torch.tensor(float(size), dtype=x.dtype)
    at = scale * (torch.arange(size, dtype=x.dtype) + 0.5) - 0.5
    first = at.floor().clamp(max=length - 1)
    rest = (at - first).clamp(0, 1)
    weights = _far(rest + 1), _near(rest), _near(1 - rest), _far(1 - rest + 1)
    pixels = [(first.to(torch.int64) + tap).clamp(0, length - 1) for tap in (-1, 0, 1, 2)]
    terms = [x[..., pixel] * weight for pixel, weight in zip(pixels, weights, strict=True)]
    return terms[0] + terms[1] + terms[2] + terms[3]


def _near(x: torch.Tensor) -> torch.Tensor:
    return (x * (A + 2) - (A + 3)) * x * x + 1


def _far(x: torch.Tensor) -> torch.Tensor:
    return ((x * A - 5 * A) * x + 8 * A) * x - 4 * A


OPERATORS = operators_of(__name__)
