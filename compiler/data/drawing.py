"""Boxes and classes of pixels, drawn onto a picture with Pillow."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_TURN = 0.618034  # of the colour circle from class to class, so that neighbours differ
_OPACITY = 0.5
_BACKGROUND = 0

_PERSON = 17
_LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
"""Of COCO's 17 keypoints of a person, from the nose to the ankles, those that are drawn with a line between them."""

Box = tuple[Sequence[float], int, str]
"""Corners x1 y1 x2 y2, a class, and what is written beside them."""


def colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb((label * _TURN) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def with_masks(image: Image.Image, masks: Sequence[tuple[np.ndarray, int]]) -> Image.Image:
    """A copy of a picture in which the pixels ``bool[height, width]`` of objects are tinted by their classes; the first
    ones lie on top."""
    from PIL import Image

    pixels = np.asarray(image.convert("RGB"), np.float32).copy()
    original = pixels.copy()
    for mask, label in reversed(masks):
        pixels[mask] = original[mask] * (1 - _OPACITY) + np.array(colour(label), np.float32) * _OPACITY
    return Image.fromarray(pixels.round().astype(np.uint8))


def with_points(image: Image.Image, objects: Sequence[tuple[np.ndarray, int]]) -> Image.Image:
    """A copy of a picture with the keypoints ``f64[k, 2]`` of objects, x and y, in the colours of their classes, and of
    a person the limbs between them; NaN stands for a point that is not there."""
    from PIL import ImageDraw

    picture = image.convert("RGB").copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 250))
    for points, label in objects:
        known = np.isfinite(points).all(1)
        for first, second in _LIMBS if len(points) == _PERSON else ():
            if known[first] and known[second]:
                draw.line((*points[first], *points[second]), fill=colour(label), width=line)
        for x, y in points[known].tolist():
            draw.ellipse((x - line, y - line, x + line, y + line), fill=colour(label), outline=(0, 0, 0))
    return picture


def with_boxes(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """A copy of a picture with boxes in the colours of their classes; the first ones lie on top."""
    from PIL import ImageDraw, ImageFont

    picture = image.convert("RGB").copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, round(min(picture.size) / 250))
    font = ImageFont.load_default(max(12, round(min(picture.size) / 40)))
    for corners, label, text in reversed(boxes):
        x1, y1, x2, y2 = corners
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour(label), width=line)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        height, width = bottom - top + 4, right - left + 4
        above = y1 - height if y1 >= height else y1
        draw.rectangle((x1, above, x1 + width, above + height), fill=colour(label))
        draw.text((x1 + 2 - left, above + 2 - top), text, fill=(0, 0, 0), font=font)
    return picture


def with_classes(image: Image.Image, classes: np.ndarray) -> Image.Image:
    """A copy of a picture whose pixels are tinted by their classes ``i64[height, width]``: all but the first class, the
    background, and those below zero, of which nothing is known."""
    from PIL import Image

    pixels = np.asarray(image.convert("RGB"), np.float32)
    palette = np.array([colour(label) for label in range(int(classes.max(initial=0)) + 1)], np.float32)
    tinted = pixels * (1 - _OPACITY) + palette[classes.clip(0)] * _OPACITY
    return Image.fromarray(np.where((classes > _BACKGROUND)[..., None], tinted, pixels).round().astype(np.uint8))
