"""NEON of 64-bit ARM, with its parts for bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.code import intrinsic, signed_and_unsigned
from lvc.backends.tvm.cpu.isa.instruction_set import Expr, InstructionSet


@dataclass(frozen=True)
class Neon(InstructionSet):
    """Vectors of 128 bits. There are 32 registers; LLVM spills where a tile takes more than these."""

    name: ClassVar[str] = "NEON"
    feature: ClassVar[str] = "neon"
    lanes: ClassVar[int] = 4
    registers: ClassVar[int] = 21
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType({"uint8": "i8mm"})
    pair_cycles: ClassVar[float | None] = 1.0

    def dot(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        if element not in self.dots:
            raise self.lacks(element)
        signed, unsigned = signed_and_unsigned(left, right)
        return intrinsic(f"int32x{self.lanes}", "llvm.aarch64.neon.usdot", sums, unsigned, signed)
