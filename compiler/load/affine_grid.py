"""Places of a picture's elements, for an affine map to move."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def places(sizes: Sequence[int], align_corners: bool, dtype: torch.dtype) -> torch.Tensor:
    """Homogeneous coordinates in [-1, 1] of all elements, ``[prod(sizes), len(sizes) + 1]``, the last axis first."""
    axes = [_axis(size, align_corners) for size in sizes]
    ones = torch.ones(*sizes, dtype=torch.float64)
    elements = torch.stack([*reversed(torch.meshgrid(*axes, indexing="ij")), ones], -1)
    return elements.reshape(-1, len(sizes) + 1).to(dtype)


def _axis(size: int, align_corners: bool) -> torch.Tensor:
    """From corner to corner, or the middles of as many equal parts; a single element lies in the middle."""
    steps = torch.arange(size, dtype=torch.float64)
    return steps * 2 / (size - 1) - 1 if align_corners and size > 1 else (2 * steps + 1) / size - 1
