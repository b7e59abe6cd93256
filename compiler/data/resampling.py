"""Scaling of pictures as Pillow does it, to the bit, in NumPy: for devices that have no Pillow.

Each output pixel is a weighted mean of the input pixels under a filter that is as wide as an output pixel, or an input
pixel if that is wider. Weights are rounded to 22 bits, sums to bytes, along one axis and then along the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_BITS = 22


def resample(pixels: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Scale ``uint8[H,W,C]`` to ``uint8[height,width,C]``, ``interpolation`` being nearest, bilinear or bicubic."""
    if interpolation == "nearest":
        rows, columns = _nearest(pixels.shape[0], height), _nearest(pixels.shape[1], width)
        return pixels.take(rows, 0).take(columns, 1)
    support, curve = _FILTERS[interpolation]
    order = [(1, width), (0, height)]
    if pixels.shape[0] - height > max(0, 2 * (pixels.shape[1] - width)):  # the order of Pillow 13
        order.reverse()
    for axis, size in order:
        if pixels.shape[axis] != size:
            pixels = _along(pixels, axis, size, support, curve)
    return pixels


def _nearest(given: int, size: int) -> np.ndarray:
    """The input pixel of each output pixel; positions are summed up, which rounds as Pillow does."""
    scale = given / size
    positions = np.cumsum([scale * 0.5] + [scale] * (size - 1))
    return np.minimum(positions.astype(np.int64), given - 1)


def _along(
    pixels: np.ndarray, axis: int, size: int, support: float, curve: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    given = pixels.shape[axis]
    scale = given / size
    stretch = max(scale, 1.0)
    reach = support * stretch
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), given) - first
    taps = range(2 * math.ceil(reach) + 1)
    weights = [np.where(tap < count, curve((tap + first - centre + 0.5) * (1 / stretch)), 0.0) for tap in taps]
    total = np.zeros(size)
    for weight in weights:  # in this order, which rounds as Pillow does
        total += weight
    sums = np.full((*pixels.shape[:axis], size, *pixels.shape[axis + 1 :]), 1 << (_BITS - 1), np.int64)
    for tap, weight in enumerate(weights):
        exact = np.where(total != 0, weight / total, weight) * (1 << _BITS)
        rounded = (exact + np.where(exact < 0, -0.5, 0.5)).astype(np.int64)
        taken = pixels.take(np.minimum(first + tap, given - 1), axis).astype(np.int64)
        sums += taken * rounded.reshape(-1, *[1] * (pixels.ndim - axis - 1))
    return (sums >> _BITS).clip(0, 255).astype(np.uint8)


def _bilinear(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1, 1 - x, 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5."""
    a, x = -0.5, np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


_FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
}
