"""AVX2, and AVX-VNNI beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.instruction_set import Expr
from lvc.backends.tvm.cpu.isa.x86 import X86


@dataclass(frozen=True)
class Avx2(X86):
    """Vectors of 256 bits."""

    name: ClassVar[str] = "AVX2"
    feature: ClassVar[str] = "avx2"
    lanes: ClassVar[int] = 8
    registers: ClassVar[int] = 16
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType({"uint8": "avxvnni"})
    bytes_by_two: ClassVar[str] = "llvm.x86.avx2.pmadd.ub.sw"
    halves_by_two: ClassVar[str] = "llvm.x86.avx2.pmadd.wd"

    def dot(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        if element not in self.dots:
            raise self.lacks(element)
        return self._vpdpbusd(sums, left, right)
