"""The sizes of windows as PyTorch takes them: one number, or a list, for all axes."""

from __future__ import annotations

from collections.abc import Sequence

Sizes = int | Sequence[int]


def pair(sizes: Sizes) -> list[int]:
    """Both sizes of a window that one number, or a list of one, may stand for."""
    return _repeated(sizes, 2)


def triple(sizes: Sizes) -> list[int]:
    """The three sizes of a window over planes, likewise."""
    return _repeated(sizes, 3)


def steps(stride: Sizes, kernel: Sizes) -> Sizes:
    """How far windows are apart: where no stride is given, as far as they are large."""
    return stride if isinstance(stride, int) or stride else kernel


def _repeated(sizes: Sizes, axes: int) -> list[int]:
    values = [sizes] if isinstance(sizes, int) else list(sizes)
    return values * axes if len(values) == 1 else values
