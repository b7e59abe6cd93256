"""Uniform steps that are powers of two, so that a product with the scale is a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.passes.weight_formats.linear import Linear


@dataclass(frozen=True, kw_only=True)
class PowerOfTwo(Linear):
    """Uniform steps, each a power of two."""

    name: ClassVar[str] = "power-of-two"
    steps: ClassVar[str] = "power-of-two"
