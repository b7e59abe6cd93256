"""What decoders share: the cells that detect, and boxes in other forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lvc.compiler.errors import UsageError

STRIDES = (8, 16, 32)
"""How many pixels apart the cells of most detectors are, level by level."""


def check_strides(strides: Sequence[int]) -> None:
    """Raise `UsageError` for strides that are none."""
    if not strides or min(strides) < 1:
        raise UsageError("strides must be numbers of pixels from 1, such as strides=8,16,32")


def cells(size: tuple[int, int], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The places of the cells, column and row ``f32[n, 2]``, level by level and row by row, and the stride of each,
    ``f32[n, 1]``."""
    places, steps = [], []
    for stride in strides:
        rows, columns = (torch.arange(side // stride, dtype=torch.float32) for side in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        places.append(torch.stack([x, y], -1).reshape(-1, 2))
        steps.append(torch.full((places[-1].shape[0], 1), float(stride)))
    return torch.cat(places), torch.cat(steps)


def count_cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


_MOST = math.log(1000 / 16)
"""The most by which a side grows, as a logarithm: as in torchvision, so that nothing is infinite."""


def moved(centres: Tensor, sides: Tensor, offsets: Tensor, variances: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Centres and sides ``[..., n, 2]`` of boxes at offsets ``[..., n, 4]`` from others, of ``[n, 2]`` each."""
    at, grown = offsets[..., :2] * variances[0], offsets[..., 2:] * variances[1]
    return centres + at * sides, grown.clamp(max=_MOST).exp() * sides


def corners(centre: Tensor, sides: Tensor) -> Tensor:
    """Boxes ``[..., 4]`` of their centres and sides ``[..., 2]``."""
    half = sides / 2
    return torch.cat([centre - half, centre + half], -1)
