"""How a tensor lies in memory: plain, or with its channels in blocks of the vector width.

A blocked tensor ``[N, C, H, W]`` is stored as ``[N, ceil(C/b), H, W, b]``. The lanes past C hold any finite numbers:
whoever computes with them multiplies by weights that are zero there, and nobody reads them otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """``block`` 0 is plain (row-major); otherwise channels of a 4-D tensor are in blocks of that many."""

    block: int = 0

    def physical(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape in memory of a tensor of a logical shape."""
        if not self.block:
            return tuple(shape)
        n, c, h, w = shape
        return (n, -(-c // self.block), h, w, self.block)

    def bounds(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The logical shape with the lanes past the last channel, which may be read too."""
        if not self.block:
            return tuple(shape)
        n, c, h, w = shape
        return (n, -(-c // self.block) * self.block, h, w)

    def to_physical(self, index: Sequence[Any]) -> tuple[Any, ...]:
        """Where the element of a logical index lies."""
        if not self.block:
            return tuple(index)
        n, c, h, w = index
        return (n, c // self.block, h, w, c % self.block)

    def to_logical(self, axes: Sequence[Any]) -> tuple[Any, ...]:
        """Which element lies at a place in memory."""
        if not self.block:
            return tuple(axes)
        n, co, h, w, ci = axes
        return (n, co * self.block + ci, h, w)

    def is_ragged(self, shape: Sequence[int]) -> bool:
        """Whether there are lanes past the last channel."""
        return bool(self.block) and shape[1] % self.block != 0

    def pack(self, array: np.ndarray) -> np.ndarray:
        """Copy a logical array into this layout, zeros past the last channel."""
        if not self.block:
            return np.ascontiguousarray(array)
        n, blocks, h, w, b = self.physical(array.shape)
        padded = np.zeros((n, blocks * b, h, w), array.dtype)
        padded[:, : array.shape[1]] = array
        return np.ascontiguousarray(padded.reshape(n, blocks, b, h, w).transpose(0, 1, 3, 4, 2))

    def is_flat(self, shape: Sequence[int]) -> bool:
        """Whether the bytes in memory are those of the plain layout."""
        if not self.block:
            return True
        _, c, h, w = shape
        return (c % self.block == 0) and h == w == 1

    def elements(self, shape: Sequence[int]) -> int:
        """Elements in memory, those past the last channel included."""
        return math.prod(self.physical(shape))

    def __str__(self) -> str:
        return f"NCHW{self.block}c" if self.block else "plain"


PLAIN = Layout()
