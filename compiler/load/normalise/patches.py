"""`unfold` and `fold`: windows of an image as columns, columns added up into an image again, and windows of a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch._ops import OpOverload

from lvc.compiler.load.normalise.builder import Builder, Operand, Rule
from lvc.compiler.load.normalise.contraction import conv_transpose2d
from lvc.compiler.load.normalise.movement import cut, pad, permute, reshape, stack, unsqueeze
from lvc.compiler.load.normalise.window_sizes import pair

aten = torch.ops.aten
Pair = Sequence[int]


def _counts(size: Pair, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> list[int]:
    """Windows down and across an image."""
    each = zip(size, kernel, dilation, padding, stride, strict=True)
    return [(s + 2 * p - d * (k - 1) - 1) // step + 1 for s, k, d, p, step in each]


def _im2col(b: Builder, x: Operand, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Operand:
    """One slice of the padded image for each place in the window."""
    if x.rank == 3:
        single = _im2col(b, unsqueeze(b, x, 0), kernel_size, dilation, padding, stride)
        return reshape(b, single, single.shape[1:])
    kernel, dilation, padding, stride = map(pair, (kernel_size, dilation, padding, stride))
    rows, columns = _counts(x.shape[2:], kernel, dilation, padding, stride)
    padded = pad(b, x, [padding[1], padding[1], padding[0], padding[0]])
    parts = []
    for i, j in product(range(kernel[0]), range(kernel[1])):
        top, left = i * dilation[0], j * dilation[1]
        band = cut(b, padded, 2, top, top + (rows - 1) * stride[0] + 1, stride[0])
        parts.append(cut(b, band, 3, left, left + (columns - 1) * stride[1] + 1, stride[1]))
    return reshape(b, stack(b, parts, 2), (x.shape[0], x.shape[1] * len(parts), rows * columns))


def _col2im(
    b: Builder, x: Operand, output_size: Pair, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair
) -> Operand:
    """A transposed convolution that puts each of a window's elements in its place."""
    if x.rank == 2:
        single = _col2im(b, unsqueeze(b, x, 0), output_size, kernel_size, dilation, padding, stride)
        return reshape(b, single, single.shape[1:])
    kernel, dilation, padding, stride = map(pair, (kernel_size, dilation, padding, stride))
    size, taps = pair(output_size), kernel[0] * kernel[1]
    counts = _counts(size, kernel, dilation, padding, stride)
    each = zip(size, counts, kernel, dilation, padding, stride, strict=True)
    rest = [s - ((n - 1) * step - 2 * p + d * (k - 1) + 1) for s, n, k, d, p, step in each]
    channels = x.shape[1] // taps
    places = torch.eye(taps, dtype=x.dtype).reshape(taps, 1, *kernel).repeat(channels, 1, 1, 1)
    columns = reshape(b, x, (x.shape[0], x.shape[1], *counts))
    return conv_transpose2d(b, columns, b.constant(places), None, stride, padding, rest, channels, dilation)


def _windows(b: Builder, x: Operand, dimension: int, size: int, step: int) -> Operand:
    """Windows along a dimension, which then counts them; their elements are the last dimension."""
    if x.rank == 0:
        return reshape(b, x, (1,))
    dim = dimension % x.rank
    count = (x.shape[dim] - size) // step + 1
    places = torch.arange(count).reshape(-1, 1) * step + torch.arange(size)
    picked = b.call(aten.index_select.default, x, dim, b.constant(places.reshape(-1)))
    apart = reshape(b, picked, (*x.shape[:dim], count, size, *x.shape[dim + 1 :]))
    order = [*(d for d in range(apart.rank) if d != dim + 1), dim + 1]
    return permute(b, apart, order)


PATCHES: dict[OpOverload, Rule] = {
    aten.im2col.default: _im2col,
    aten.col2im.default: _col2im,
    aten.unfold.default: _windows,
}
