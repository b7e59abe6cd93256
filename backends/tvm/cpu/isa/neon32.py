"""NEON of 32-bit ARM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.neon import Neon


@dataclass(frozen=True)
class Neon32(Neon):
    """Half as many registers. Numbers below the least normal one are zeros to it, in vectors."""

    registers: ClassVar[int] = 13
    fenced: ClassVar[int] = 0
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType({})
    matrix_features: ClassVar[Mapping[str, str]] = MappingProxyType({})
    attributes: ClassVar[tuple[str, ...]] = ("+neon", "+vfp4")
    products: ClassVar[str] = "llvm.arm.neon.vmulls"
