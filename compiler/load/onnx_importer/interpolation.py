"""ONNX's definition of resizing along one axis, as index vectors and interpolation matrices.

Every mode of Resize is separable: the result along an axis is a matrix with a few non-zero weights in each row
times the data, or for `nearest` one index for each place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One resized axis: sizes before and after, the scale, and for tf_crop_and_resize the part that is read."""

    size: int
    resized: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Rule:
    """How places of the result are read: the attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def coordinates(axis: Axis, mode: str, dtype: type[np.floating] = np.float64) -> np.ndarray:
    """Return where each place of the result lies on the original axis."""
    place: np.ndarray = np.arange(axis.resized, dtype=dtype)
    size, resized, scale = axis.size, axis.resized, dtype(axis.scale)
    centre: np.ndarray = (place + 0.5) / scale - 0.5
    last = (size - 1) / (resized - 1) if resized > 1 else 0.0
    match mode:
        case "half_pixel":
            return centre
        case "half_pixel_symmetric":
            return centre + size / 2 * (1 - resized / (float(scale) * size))
        case "pytorch_half_pixel":
            return centre if resized > 1 else place * 0
        case "align_corners":
            return place * last
        case "asymmetric":
            left: np.ndarray = place / scale
            return left
        case "tf_half_pixel_for_nn":
            return centre + 0.5
        case "tf_crop_and_resize":
            if resized > 1:
                return axis.start * (size - 1) + place * (axis.end - axis.start) * last
            return place + 0.5 * (axis.start + axis.end) * (size - 1)
        case _:
            raise ValueError(f"coordinate_transformation_mode cannot be '{mode}'")


def nearest_index(axis: Axis, rule: Rule) -> np.ndarray:
    """Return the element that each place of the result repeats; in 32 bits, where scales such as 0.6 are meant."""
    x = coordinates(axis, rule.coordinates, np.float32)
    match rule.nearest:
        case "round_prefer_floor":
            index = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            index = np.floor(x + 0.5)
        case "floor":
            index = np.floor(x)
        case "simple":  # ONNX Runtime's rule up to opset 10
            index = np.ceil(x) if axis.scale < 1 else np.floor(x)
        case "ceil":
            index = np.ceil(x)
        case _:
            raise ValueError(f"nearest_mode cannot be '{rule.nearest}'")
    picked: np.ndarray = np.clip(index, 0, axis.size - 1).astype(np.int64)
    return picked


def weights(axis: Axis, rule: Rule) -> np.ndarray:
    """Return the matrix (resized, size) of linear or cubic interpolation."""
    matrix = np.zeros((axis.resized, axis.size))
    for row, x in enumerate(coordinates(axis, rule.coordinates)):
        floor = math.floor(x)
        places, taps = _taps(x - floor, axis.scale, rule)
        places = places + floor
        if rule.exclude_outside:
            taps = np.where((places >= 0) & (places < axis.size), taps, 0.0)
            taps = taps / taps.sum()
        np.add.at(matrix[row], np.clip(places, 0, axis.size - 1), taps)
    return matrix


def outside(axis: Axis) -> np.ndarray:
    """Return which places tf_crop_and_resize reads from beyond the axis."""
    x = coordinates(axis, "tf_crop_and_resize")
    return (x < 0) | (x > axis.size - 1)


def _taps(ratio: float, scale: float, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Return the taps around a place: offsets from the element before it, and their weights."""
    reach = 1 if rule.mode == "linear" else 2

    def kernel(distance: np.ndarray) -> np.ndarray:
        return _triangle(distance) if rule.mode == "linear" else _cubic(distance, rule.cubic)

    if rule.antialias and scale < 1:
        first = math.floor(-reach / scale) + 1
        places = np.arange(first, 2 - first)
        taps = kernel((places - ratio) * scale)
        return places, taps / taps.sum()
    places = np.arange(1 - reach, reach + 1)
    return places, kernel(places - ratio)


def _triangle(distance: np.ndarray) -> np.ndarray:
    weight: np.ndarray = np.maximum(1 - np.abs(distance), 0.0)
    return weight


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
