"""Decoding image files from anybody: few formats, bounded size, and one clear error."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import UsageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_FILE_BYTES = 256 << 20


def is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def decode_image(content: bytes, where: str) -> Image.Image:
    """Decode the first frame of an image file, turned upright as its EXIF data says.

    Raises `UsageError` naming ``where`` for a broken file, an unknown format or more pixels than Pillow thinks safe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = Image.open(io.BytesIO(content), formats=FORMATS)
            file.load()
            image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"at most {Image.MAX_IMAGE_PIXELS} pixels are decoded"
        raise UsageError("the image is too large", where=where, why=limit) from None
    except Exception as error:  # Pillow's decoders raise many types for broken files
        kinds = ", ".join(FORMATS)
        raise UsageError(
            "the image cannot be decoded",
            where=where,
            why=_reason(error) if content else "the file is empty",
            help=f"formats that can be read: {kinds}",
        ) from error
    return _to_bytes(image, where)


def _to_bytes(image: Image.Image, where: str) -> Image.Image:
    """Bring 16 bits a pixel to the upper 8; Pillow's own conversion would make almost everything white."""
    if image.mode in ("I", "F"):
        raise UsageError(f"the image has 32-bit pixels (mode {image.mode})", where=where, help="save it with 8 bits")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def read_bounded(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most so many bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=str(error.strerror)) from error
    if len(content) > most:
        raise UsageError(f"'{path}' is too large", why=f"more than {most} bytes")
    return content


def prepare_image(content: bytes, where: str, preprocess: Preprocess) -> np.ndarray:
    """Decode and preprocess one image file into ``float32[1,C,H,W]``."""
    return at(where, lambda: preprocess(decode_image(content, where)))


def at(where: str, work: Callable[[], np.ndarray]) -> np.ndarray:
    """Do some work on one sample, and name the sample in its errors."""
    try:
        return work()
    except UsageError as error:
        raise UsageError(error.what, where=error.where or where, why=error.why, help=error.help) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is none of the formats that are read"
    return f"{type(error).__name__}: {error}".splitlines()[0]
