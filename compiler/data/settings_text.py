"""The text form of a preprocessing: ``imagenet,crop=288`` or ``resize=256,crop=224,mean=0.485/0.456/0.406``."""

from __future__ import annotations

import math
import re
from typing import Any

from lvc.compiler.errors import UsageError, did_you_mean

PRESETS: dict[str, str] = {
    "imagenet": "resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225",
    "cifar10": "mean=0.485/0.456/0.406,std=0.229/0.224/0.225",
}
CHOICES: dict[str, tuple[str, ...]] = {
    "interpolation": ("bilinear", "bicubic", "nearest"),
    "layout": ("rgb", "bgr", "gray"),
    "range": ("1", "255", "symmetric"),
}
NUMBERS = ("mean", "std")
SIZES = ("letterbox", "resize", "crop")
MAX_SIDE = 16_384
MAX_TEXT = 4_096


def parse_settings(text: str) -> dict[str, Any]:
    """Read the settings of a text by name; `UsageError` with a suggestion for a misspelt preset, setting or value."""
    if len(text) > MAX_TEXT:
        raise UsageError("the preprocessing is too long", why=f"{len(text)} characters, at most {MAX_TEXT}")
    settings: dict[str, Any] = {}
    for place, item in enumerate(part.strip() for part in text.split(",")):
        if place == 0 and "=" not in item:
            for part in _preset(item).split(","):
                settings.update([_setting(part)])
        else:
            settings.update([_setting(item)])
    return settings


def format_setting(name: str, value: Any) -> str:
    """Write one setting so that `parse_settings` reads it back equal."""
    if name == "letterbox":
        height, width, fill = value
        return f"{name}={_square(height, width)}@{fill}"
    if name == "crop":
        return f"{name}={_square(*value)}"
    if name == "resize":
        return f"{name}={'x'.join(map(str, value))}"
    if name in NUMBERS:
        return f"{name}={'/'.join(repr(number).removesuffix('.0') for number in value)}"
    return f"{name}={value}"


def _preset(name: str) -> str:
    if name not in PRESETS:
        known = f"presets: {', '.join(PRESETS)}; settings: {', '.join((*SIZES, *CHOICES, *NUMBERS))}"
        raise UsageError(f"there is no preprocessing '{name}'", help=did_you_mean(name, PRESETS) + known)
    return PRESETS[name]


def _setting(item: str) -> tuple[str, Any]:
    name, equals, text = (part.strip() for part in item.partition("="))
    known = (*SIZES, *CHOICES, *NUMBERS)
    if name not in known or not equals:
        raise UsageError(
            f"'{item}' is not a preprocessing setting", help=did_you_mean(name, known) + "settings: " + ", ".join(known)
        )
    if name in CHOICES:
        return name, _choice(name, text)
    if name in NUMBERS:
        return name, _numbers(name, text)
    return name, _letterbox(text) if name == "letterbox" else _size(name, text)


def _choice(name: str, text: str) -> str:
    if text not in CHOICES[name]:
        options = ", ".join(CHOICES[name])
        raise UsageError(f"{name} cannot be '{text}'", help=did_you_mean(text, CHOICES[name]) + f"one of {options}")
    return text


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"'{text}' is no {name}", help=f"write it as {name}=0.5 or {name}=0.485/0.456/0.406")
    return numbers


def _size(name: str, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,5}(x\d{1,5})?", text, re.ASCII):
        raise UsageError(
            f"'{text}' is no size for {name}", help=f"write it as {name}=224 or {name}=224x320, height first"
        )
    sides = tuple(int(side) for side in text.split("x"))
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise UsageError(f"{name}={text} is out of range", why=f"a side has 1 to {MAX_SIDE} pixels")
    return sides * 2 if name != "resize" and len(sides) == 1 else sides


def _letterbox(text: str) -> tuple[int, ...]:
    size, _, fill = text.partition("@")
    if not re.fullmatch(r"\d{0,3}", fill, re.ASCII) or int(fill or 0) > 255:
        raise UsageError(f"'{fill}' is no fill for letterbox", help="write it as letterbox=416@114, 0 to 255")
    return (*_size("letterbox", size), int(fill or 0))


def _square(height: int, width: int) -> str:
    return str(height) if height == width else f"{height}x{width}"
