"""Pictures are scaled in NumPy as Pillow scales them, to the bit."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.resampling import resample

RANDOM = np.random.default_rng(0)


def pictures(number: int) -> list[np.ndarray]:
    """Noise, and edges that cubic weights overshoot, of odd sizes."""
    made = []
    for place in range(number):
        height, width = RANDOM.integers(1, 90, 2)
        pixels = RANDOM.integers(0, 256, (height, width, 1 + 2 * (place % 2)), np.uint8)
        made.append(pixels if place % 3 else np.where(pixels > 128, np.uint8(255), np.uint8(0)))
    return made


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_sizes_of_every_kind(interpolation: str) -> None:
    for pixels in pictures(60):
        height, width = map(int, RANDOM.integers(1, 90, 2))
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        wanted = np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()]))
        found = resample(pixels, height, width, interpolation)
        np.testing.assert_array_equal(found, wanted.reshape(found.shape), f"{pixels.shape} to {height}x{width}")


@pytest.mark.parametrize("given", [1, 3, 7, 100, 640])
def test_nearest_pixels_of_many_sizes(given: int) -> None:
    row = RANDOM.integers(0, 256, (1, given), np.uint8)
    for size in range(1, 400, 7):
        wanted = np.asarray(Image.fromarray(row).resize((size, 1), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(resample(row[:, :, None], 1, size, "nearest")[:, :, 0], wanted)


@pytest.mark.parametrize(
    "text",
    [
        "imagenet,crop=20,resize=24",
        "resize=24,crop=20,interpolation=bicubic,layout=bgr,range=symmetric",
        "resize=30x20,layout=gray,interpolation=nearest",
        "letterbox=32x48@114,range=255",
        "cifar10",
    ],
)
def test_preprocessing_without_pillow(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = Preprocess.parse(text)
    shapes = [(40, 31, 3), (29, 57, 3), (64, 25), (33, 33, 1)]
    given = [RANDOM.integers(0, 256, shape, np.uint8) for shape in shapes]
    wanted = [preprocess(pixels) for pixels in given]
    monkeypatch.setitem(sys.modules, "PIL", None)
    for pixels, result in zip(given, wanted, strict=True):
        np.testing.assert_array_equal(preprocess(pixels), result)


def test_grey_is_that_of_pillow() -> None:
    pixels = RANDOM.integers(0, 256, (64, 64, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    np.testing.assert_array_equal(Preprocess.parse("layout=gray,range=255")(pixels)[0, 0], wanted)
