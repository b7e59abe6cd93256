"""Decoding image files from anybody: few formats, bounded size, and one clear error."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.data.pillow import require_pillow
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from lvc.compiler.data.preprocess import Preprocess
    from lvc.compiler.data.samples import Fit

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_FILE_BYTES = 256 << 20


def is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def decode_image(content: bytes, where: str) -> Image.Image:
    """Decode the first frame of an image file, turned upright as its EXIF data says.

    Raises `UsageError` naming ``where`` for a broken file, an unknown format or more pixels than Pillow thinks safe.
    """
    require_pillow()
    from PIL import Image, ImageOps

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
    from PIL import Image

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


def prepare_file(content: bytes, where: str, preprocess: Preprocess, fits: Fit) -> np.ndarray:
    """Decode one image file and prepare it for an input."""
    return prepare(decode_image(content, where), where, preprocess, fits)


def prepare(image: Image.Image | np.ndarray, where: str, preprocess: Preprocess, fits: Fit) -> np.ndarray:
    """Preprocess an image for an input: ``[1,C,H,W]``, or ``[1,H,W,C]`` if it takes channels last; integers if it
    takes such. `UsageError` naming ``where``."""
    takes_bytes = fits.dtype.kind in "iu" and np.can_cast(np.uint8, fits.dtype)
    if takes_bytes and not preprocess.keeps_bytes:
        raise UsageError(
            f"input '{fits.name}' takes {fits.dtype}, and the preprocessing makes numbers that are no integers",
            where=where,
            why=f"it is {preprocess}",
            help="such a model normalises by itself: give range=255 and neither mean nor std",
        )
    try:
        planes = preprocess(image)
    except UsageError as error:
        raise UsageError(error.what, where=error.where or where, why=error.why, help=error.help) from error
    if fits.is_channels_last:
        planes = planes.transpose(0, 2, 3, 1)
    return planes.astype(fits.dtype) if takes_bytes else planes


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is none of the formats that are read"
    return f"{type(error).__name__}: {error}".splitlines()[0]
