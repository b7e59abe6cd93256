"""Resizing, cropping and padding of images, with the rounding of torchvision on PIL images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lvc.compiler.errors import UsageError

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
MAX_PIXELS = 64_000_000


def to_image(pixels: np.ndarray) -> Image.Image:
    """Wrap ``uint8[H,W]``, ``uint8[H,W,1]`` or ``uint8[H,W,3]`` as an image."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    grey, colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (grey or colour) or 0 in pixels.shape:
        found = f"{pixels.dtype}[{','.join(map(str, pixels.shape))}]"
        raise UsageError(f"an image must be uint8[H,W,3] or uint8[H,W], not {found}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def resize(image: Image.Image, sides: tuple[int, ...], interpolation: str) -> Image.Image:
    """Scale to (height, width), or so that the shorter side is (side,) long and the longer one is rounded down."""
    if len(sides) == 2:
        height, width = sides
    elif image.width <= image.height:
        width, height = sides[0], int(sides[0] * image.height / image.width)
    else:
        height, width = sides[0], int(sides[0] * image.width / image.height)
    return _scale(image, height, width, interpolation)


def crop_centre(image: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """Cut (height, width) out of the middle."""
    height, width = sides
    if height > image.height or width > image.width:
        raise UsageError(
            f"an image of {image.height}x{image.width} is smaller than crop={height}x{width}",
            help="scale it up first with resize=",
        )
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def letterbox(image: Image.Image, box: tuple[int, int, int], interpolation: str) -> Image.Image:
    """Scale to fit (height, width, fill), keep the aspect, fill what is left at the right and bottom."""
    height, width, fill = box
    scale = min(height / image.height, width / image.width)
    scaled = _scale(image, max(1, int(image.height * scale)), max(1, int(image.width * scale)), interpolation)
    canvas = Image.new(image.mode, (width, height), (fill,) * len(image.getbands()))
    canvas.paste(scaled, (0, 0))
    return canvas


def _scale(image: Image.Image, height: int, width: int, interpolation: str) -> Image.Image:
    if (image.height, image.width) == (height, width):
        return image
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"an image of {image.height}x{image.width} would become {height}x{width}",
            why=f"more than {MAX_PIXELS} pixels",
            help="crop it, or give both sides: resize=HxW",
        )
    return image.resize((width, height), FILTERS[interpolation])
