"""Maximum pooling that tells where its maxima are, and what puts them back there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule
from lvc.compiler.load.normalise.composite import composite, written
from lvc.compiler.load.normalise.pooling import max_pool2d
from lvc.compiler.load.normalise.window_sizes import Sizes, pair, steps

aten = torch.ops.aten


def max_places(x: Tensor, windows: Sequence[Sequence[int]], *, by_columns: bool = False) -> Tensor:
    """The place of each window's first maximum in its plane of ``x[N,C,H,W]``, row by row, or column by column,
    ``i64[N,C,h,w]``. Of the windows these are height and width of kernel, stride, padding before and after, and
    dilation."""
    height, width = x.shape[2:]
    kernel, stride, before, after, dilation = windows
    sides = zip((height, width), *windows, strict=True)
    rows, columns = ((size + b + a - d * (k - 1) - 1) // s + 1 for size, k, s, b, a, d in sides)
    padded = F.pad(x, (before[1], after[1], before[0], after[0]), value=float("-inf"))
    taps, places = [], []
    for i, j in product(range(kernel[0]), range(kernel[1])):
        top, left = i * dilation[0], j * dilation[1]
        down, across = top + (rows - 1) * stride[0] + 1, left + (columns - 1) * stride[1] + 1
        taps.append(padded[:, :, top : down : stride[0], left : across : stride[1]])
        row = torch.arange(rows)[:, None] * stride[0] + top - before[0]
        column = torch.arange(columns) * stride[1] + left - before[1]
        places.append(row + column * height if by_columns else row * width + column)
    tap = torch.stack(taps, -1).argmax(-1)
    table = torch.stack(places, -1).clamp(0, height * width - 1)  # of a window of minus infinities any place will do
    return table.expand(*tap.shape, len(taps)).gather(-1, tap[..., None])[..., 0]


def unpooled(x: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """Planes ``[..., height, width]`` of zeros with each element of ``x[...,h,w]`` at its place in its plane."""
    planes = x.flatten(-2)
    empty = torch.zeros(*planes.shape[:-1], height * width, dtype=x.dtype)
    return empty.scatter(-1, places.flatten(-2), planes).reshape(*x.shape[:-2], height, width)


def _places(
    x: Tensor, size: Sequence[int], kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1
) -> Tensor:
    """As `aten.max_pool2d_with_indices` has them, of which there are ``size``."""
    if x.dim() == 3:
        return _places(x[None], size, kernel, stride, padding, dilation)[0]
    kernel, strides, before, gaps = (pair(part) for part in (kernel, steps(stride, kernel), padding, dilation))
    each = zip(size, x.shape[2:], kernel, strides, before, gaps, strict=True)
    after = [max(0, (made - 1) * s + d * (k - 1) + 1 - have - b) for made, have, k, s, b, d in each]
    return max_places(x, (kernel, strides, before, after, gaps))


def _with_places(b: Builder, x: Operand, *options: Any) -> tuple[Operand, ...]:
    values = max_pool2d(b, x, *options)
    places = written(b, _places, x, values.shape[-2:], *options[:4])
    assert isinstance(places, Operand)
    return values, places


def _max_unpool2d(x: Tensor, indices: Tensor, output_size: Sequence[int]) -> Tensor:
    return unpooled(x, indices, *output_size)


PLACES: dict[OpOverload, Rule] = {
    aten.max_pool2d_with_indices.default: _with_places,
    aten.max_unpool2d.default: composite(_max_unpool2d),
}
