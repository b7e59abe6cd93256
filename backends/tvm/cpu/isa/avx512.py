"""AVX-512, with its parts for bytes (VNNI) and for bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.code import function, of_pairs, rounding_to_bfloat16
from lvc.backends.tvm.cpu.isa.instruction_set import Expr
from lvc.backends.tvm.cpu.isa.x86 import X86

_BFLOAT16 = "lvc_dot_bf16"


@dataclass(frozen=True)
class Avx512(X86):
    """Vectors of 512 bits. For Intel's processors LLVM would take half of that by itself."""

    name: ClassVar[str] = "AVX-512"
    feature: ClassVar[str] = "avx512f"
    lanes: ClassVar[int] = 16
    registers: ClassVar[int] = 32
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType({"bfloat16": "avx512bf16", "uint8": "avx512vnni"})
    attributes: ClassVar[tuple[str, ...]] = ("-prefer-256-bit",)
    bytes_by_two: ClassVar[str] = "llvm.x86.avx512.pmaddubs.w.512"
    halves_by_two: ClassVar[str] = "llvm.x86.avx512.pmaddw.d.512"

    @property
    def rounds_bfloat16(self) -> bool:
        return "bfloat16" in self.dots

    def dot(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        if element not in self.dots:
            raise self.lacks(element)
        if element == "bfloat16":
            return function(f"{_BFLOAT16}_{sums.ty.dtype.lanes}", sums, left, right)
        return self._vpdpbusd(sums, left, right)

    def declarations(self, element: str) -> str:
        if element != "bfloat16":
            return ""
        widths = (self.lanes, self.lanes // 2, self.lanes // 4)
        instruction = "llvm.x86.avx512bf16.dpbf16ps"
        products = (of_pairs(f"{_BFLOAT16}_{lanes}", f"{instruction}.{32 * lanes}", lanes) for lanes in widths)
        return "".join(products) + rounding_to_bfloat16(self.lanes)
