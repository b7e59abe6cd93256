"""Resizing, cropping and padding of pictures ``uint8[H,W,C]``, with the rounding of torchvision on PIL images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.data.pillow import has_pillow
from lvc.compiler.data.resampling import resample
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000


def to_pixels(image: Image.Image | np.ndarray, channels: int) -> np.ndarray:
    """Return the pixels of an image, or of ``uint8[H,W]``, ``[H,W,1]`` or ``[H,W,3]``, with 1 or 3 channels."""
    if not isinstance(image, np.ndarray):
        image = image.convert("L" if channels == 1 else "RGB")
        return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        found = f"{image.dtype}[{','.join(map(str, image.shape))}]"
        raise UsageError(f"an image must be uint8[H,W,3] or uint8[H,W], not {found}")
    if pixels.shape[2] == channels:
        return pixels
    return pixels.repeat(3, 2) if channels == 3 else _luma(pixels)


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Grey of ITU-R 601, as Pillow rounds it."""
    weighted: np.ndarray = pixels @ np.array([19595, 38470, 7471]) + (1 << 15)
    return (weighted >> 16).astype(np.uint8)[:, :, None]


def resize(pixels: np.ndarray, sides: tuple[int, ...], interpolation: str) -> np.ndarray:
    """Scale to (height, width), or so that the shorter side is (side,) long and the longer one is rounded down."""
    return _scale(pixels, *resized((pixels.shape[0], pixels.shape[1]), sides), interpolation)


def resized(size: tuple[int, int], sides: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a picture of a size after `resize`."""
    height, width = size
    if len(sides) == 2:
        return sides[0], sides[1]
    if width <= height:
        return int(sides[0] * height / width), sides[0]
    return sides[0], int(sides[0] * width / height)


def crop_centre(pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Cut (height, width) out of the middle."""
    height, width = sides
    given_height, given_width = pixels.shape[:2]
    if height > given_height or width > given_width:
        raise UsageError(
            f"an image of {given_height}x{given_width} is smaller than crop={height}x{width}",
            help="scale it up first with resize=",
        )
    top, left = margins((given_height, given_width), sides)
    return pixels[top : top + height, left : left + width]


def margins(size: tuple[int, int], sides: tuple[int, int]) -> tuple[int, int]:
    """What `crop_centre` takes off a picture of a size, at the top and at the left."""
    return round((size[0] - sides[0]) / 2), round((size[1] - sides[1]) / 2)


def letterbox(pixels: np.ndarray, box: tuple[int, int, int], interpolation: str) -> np.ndarray:
    """Scale to fit (height, width, fill), keep the aspect, fill what is left at the right and bottom."""
    height, width, fill = box
    scaled = _scale(pixels, *fitted((pixels.shape[0], pixels.shape[1]), (height, width)), interpolation)
    canvas = np.full((height, width, pixels.shape[2]), fill, np.uint8)
    canvas[: scaled.shape[0], : scaled.shape[1]] = scaled
    return canvas


def fitted(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture of a size after `letterbox`, without what is filled."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _scale(pixels: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"an image of {pixels.shape[0]}x{pixels.shape[1]} would become {height}x{width}",
            why=f"more than {MAX_PIXELS} pixels",
            help="crop it, or give both sides: resize=HxW",
        )
    if not has_pillow():
        return resample(pixels, height, width, interpolation)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    scaled = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return np.asarray(scaled).reshape(height, width, -1)
