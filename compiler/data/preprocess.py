"""From an image to a model's input: what is done, and its one text form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lvc.compiler.data import geometry
from lvc.compiler.data.placement import Placement
from lvc.compiler.data.settings_text import format_setting, parse_settings
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The way of an image into a model, in this order.

    ``letterbox`` is (height, width, fill): scale to fit, pad at the right and bottom. ``resize`` is (shorter side,) or
    (height, width), with antialiasing, as torchvision does on PIL images. ``crop`` is the centre (height, width).
    ``layout`` picks and orders the channels. ``range`` maps bytes to 0..1 (``1``), 0..255 (``255``) or -1..1
    (``symmetric``). Then ``(x - mean) / std``, one number for all channels or one for each, in the layout's order.

    The text form is ``resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,layout=rgb,range=1``; it may
    begin with a preset's name, whose settings those after it replace. ``Preprocess.parse(str(p)) == p``.
    """

    letterbox: tuple[int, int, int] | None = None
    resize: tuple[int, ...] | None = None
    interpolation: str = "bilinear"
    crop: tuple[int, int] | None = None
    layout: str = "rgb"
    range: str = "1"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.letterbox and (self.resize or self.crop):
            raise UsageError("a preprocessing has either 'letterbox' or 'resize' and 'crop'")
        if self.resize and self.crop and not _fits(self.crop, self.resize):
            crop, resize = format_setting("crop", self.crop), format_setting("resize", self.resize)
            raise UsageError(f"{crop} does not fit into {resize}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, 1, self.channels):
                counts = " or ".join(map(str, sorted({1, self.channels})))
                raise UsageError(f"'{name}' needs {counts} number(s) for layout={self.layout}")
        if any(number == 0 for number in self.std):
            raise UsageError("'std' cannot be zero")

    @property
    def channels(self) -> int:
        return 1 if self.layout == "gray" else 3

    @property
    def keeps_bytes(self) -> bool:
        """Whether every number of the result is a byte of the image."""
        return self.range == "255" and not self.mean and not self.std

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the result, where they do not depend on the image."""
        if self.letterbox:
            return self.letterbox[:2]
        if self.crop:
            return self.crop
        return (self.resize[0], self.resize[1]) if self.resize and len(self.resize) == 2 else None

    def __call__(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Turn an image, or an array ``uint8[H,W]`` or ``uint8[H,W,3]``, into ``float32[1,C,H,W]``."""
        return self.to_planes(self.to_size(geometry.to_pixels(image, self.channels)))[None]

    def to_size(self, pixels: np.ndarray) -> np.ndarray:
        """Bring pixels ``uint8[H,W,C]`` to the size of the result: the first half of what is done to an image."""
        if self.letterbox:
            pixels = geometry.letterbox(pixels, self.letterbox, self.interpolation)
        if self.resize:
            pixels = geometry.resize(pixels, self.resize, self.interpolation)
        if self.crop:
            pixels = geometry.crop_centre(pixels, self.crop)
        return pixels

    def placement(self, size: tuple[int, int]) -> Placement:
        """Where the pixels of a picture of that height and width come to lie in the result."""
        made, shift = size, (0, 0)
        if self.letterbox:
            made = geometry.fitted(size, self.letterbox[:2])
        if self.resize:
            made = geometry.resized(size, self.resize)
        if self.crop:
            shift = geometry.margins(made, self.crop)
        return Placement(size, (made[0] / size[0], made[1] / size[1]), shift)

    def to_planes(self, pixels: np.ndarray) -> np.ndarray:
        """Turn pixels ``uint8[...,H,W,C]``, of any number of images, into ``float32[...,C,H,W]``: the second half."""
        if self.layout == "bgr":
            pixels = pixels[..., ::-1]
        planes = np.ascontiguousarray(np.moveaxis(pixels, -1, -3), np.float32)
        if self.range == "1":
            planes /= np.float32(255)
        elif self.range == "symmetric":
            planes /= np.float32(127.5)
            planes -= np.float32(1)
        if self.mean:
            planes -= np.asarray(self.mean, np.float32).reshape(-1, 1, 1)
        if self.std:
            planes /= np.asarray(self.std, np.float32).reshape(-1, 1, 1)
        return planes

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read the text form; `UsageError` with a suggestion for a misspelt preset, setting or value."""
        return cls(**parse_settings(text))

    def __str__(self) -> str:
        return ",".join(
            format_setting(field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name in ("layout", "range") or getattr(self, field.name) != field.default
        )


def _fits(crop: tuple[int, int], resize: tuple[int, ...]) -> bool:
    """Whether a crop can lie within the resized image; with one side given, within the shorter side."""
    if len(resize) == 1:
        return min(crop) <= resize[0]
    return crop[0] <= resize[0] and crop[1] <= resize[1]
