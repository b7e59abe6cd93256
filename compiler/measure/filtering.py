"""Winograd's algorithm as a backend does it, step by step in PyTorch: what its rounding costs a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.compiler.ir.cook_toom import CookToom, Row
from lvc.compiler.pipeline.observers import relative_difference

SAMPLED_OUTPUTS, SAMPLED_TILES = 32, 4


def rounding(weight: torch.Tensor, tile: int, seed: int, dtype: torch.dtype = torch.float32) -> float:
    """The error of a sample of outputs, relative to the largest: weights ``[O, C, KH, KW]``, normal data, both numbers
    of ``dtype`` to begin with, which what is multiplied is rounded to again.

    Transforms, products and sums are done in single precision as a backend does them.
    """
    generator = torch.Generator().manual_seed(seed)
    some = weight[:: max(1, weight.shape[0] // SAMPLED_OUTPUTS)][:SAMPLED_OUTPUTS].to(dtype).float()
    size = [transform.points for transform in CookToom.both(tile, (weight.shape[2], weight.shape[3]))]
    data = torch.randn(SAMPLED_TILES, weight.shape[1], *size, generator=generator).to(dtype).float()
    exact = torch.nn.functional.conv2d(data.double(), some.double())
    return relative_difference(filtered(data, some, tile, dtype).numpy(), exact.numpy())


def filtered(data: torch.Tensor, weight: torch.Tensor, tile: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The convolution of a tile's data ``[N, C, H, W]`` with ``[O, C, KH, KW]``: ``A' [(G g G') * (B' d B)] A``.

    What is multiplied at the points is rounded to ``dtype``; all else is done in single precision.
    """
    both = CookToom.both(tile, (weight.shape[2], weight.shape[3]))
    points = _on_both_sides([t.data for t in both], data.permute(2, 3, 0, 1)).to(dtype).float()
    factors = _on_both_sides([t.weights for t in both], weight.permute(2, 3, 0, 1)).to(dtype).float()
    return _on_both_sides([t.sums for t in both], points @ factors.transpose(2, 3)).permute(2, 3, 0, 1)


def convolved(
    data: torch.Tensor, weight: torch.Tensor, padding: tuple[int, int], tile: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The convolution of images ``[N, C, H, W]`` padded by ``padding`` with ``[O, C, KH, KW]``, tile by tile."""
    both = CookToom.both(tile, (weight.shape[2], weight.shape[3]))
    outputs = [
        size + 2 * pad - taps + 1 for size, pad, taps in zip(data.shape[2:], padding, weight.shape[2:], strict=True)
    ]
    tiles = [-(-size // t.outputs) for size, t in zip(outputs, both, strict=True)]
    whole = [(count - 1) * t.outputs + t.points for count, t in zip(tiles, both, strict=True)]
    bottom, right = (w - size - pad for w, size, pad in zip(whole, data.shape[2:], padding, strict=True))
    padded = torch.nn.functional.pad(data, (padding[1], right, padding[0], bottom))
    for axis, transform in enumerate(both, 2):
        padded = padded.unfold(axis, transform.points, transform.outputs)
    images, channels, rows, columns, *size = padded.shape
    under = padded.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, *size)
    found = filtered(under, weight, tile, dtype).reshape(images, rows, columns, len(weight), *(t.outputs for t in both))
    image = found.permute(0, 3, 1, 4, 2, 5).reshape(images, len(weight), rows * both[0].outputs, -1)
    return image[:, :, : outputs[0], : outputs[1]]


def _on_both_sides(matrices: Sequence[Sequence[Row]], tiles: torch.Tensor) -> torch.Tensor:
    """``M t N'`` for tiles that lie in the first two axes."""
    for rows in matrices:
        matrix = torch.tensor(rows)
        tiles = (matrix @ tiles.reshape(tiles.shape[0], -1)).reshape(len(matrix), *tiles.shape[1:]).transpose(0, 1)
    return tiles
