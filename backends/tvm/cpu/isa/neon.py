"""NEON of 64-bit ARM, with its parts for bytes, for bfloat16 and for half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.code import even_and_odd, function, intrinsic, of_pairs, signed_bytes, unsigned_bytes
from lvc.backends.tvm.cpu.isa.instruction_set import Expr, InstructionSet, Pairs

_BFLOAT16, _BFLOAT16_MATRIX = "lvc_dot_bf16", "lvc_matrix_bf16"


@dataclass(frozen=True)
class Neon(InstructionSet):
    """Vectors of 128 bits. There are 32 registers; LLVM spills where a tile takes more than ``registers``, or than are
    ``fenced``."""

    name: ClassVar[str] = "NEON"
    feature: ClassVar[str] = "neon"
    lanes: ClassVar[int] = 4
    registers: ClassVar[int] = 21
    fenced: ClassVar[int] = 25
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"int8": "dotprod", "uint8": "i8mm", "bfloat16": "bf16", "float16": "fullfp16"}
    )
    matrix_features: ClassVar[Mapping[str, str]] = MappingProxyType({"uint8": "i8mm", "bfloat16": "bf16"})
    pairs: ClassVar[Pairs | None] = Pairs(1.0, splat=2.0, registers=2, unroll=2)  # half of the registers have elements
    splat_cycles: ClassVar[float] = 1.1
    products: ClassVar[str] = "llvm.aarch64.neon.smull"  # of four numbers of 16 bits, by LLVM's name

    def dot(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        if element not in self.dots:
            raise self.lacks(element)
        if element == "bfloat16":
            return function(_BFLOAT16, sums, left, right)
        dtype, signed = f"int32x{self.lanes}", signed_bytes(left)
        if element == "uint8":
            return intrinsic(dtype, "llvm.aarch64.neon.usdot", sums, unsigned_bytes(right), signed)
        return intrinsic(dtype, "llvm.aarch64.neon.sdot", sums, signed, signed_bytes(right))

    def matrix_product(self, element: str, sums: Expr, left: Expr, right: Expr) -> Expr:
        if element not in self.matrices:
            raise self.lacks(element)
        if element == "bfloat16":
            return function(_BFLOAT16_MATRIX, sums, right, left)
        operands = unsigned_bytes(right), signed_bytes(left)
        return intrinsic(f"int32x{self.lanes}", "llvm.aarch64.neon.usmmla", sums, *operands)

    def declarations(self, element: str) -> str:
        if element != "bfloat16":
            return ""
        instructions = {
            _BFLOAT16: "llvm.aarch64.neon.bfdot.v4f32.v8bf16",
            _BFLOAT16_MATRIX: "llvm.aarch64.neon.bfmmla",
        }
        return "".join(of_pairs(name, instruction, self.lanes) for name, instruction in instructions.items())

    def dot_of_two(self, left: Expr, right: Expr) -> Expr:
        first, second = self._products(left, right)
        return first + second

    def add_dot_of_two(self, sums: Expr, left: Expr, right: Expr) -> Expr:
        first, second = self._products(left, right)
        return sums + first + second

    def _products(self, left: Expr, right: Expr) -> tuple[Expr, Expr]:
        """The products of the numbers at even places, and of those at odd ones: ``smlal`` as soon as they are added."""
        pairs = zip(even_and_odd(left), even_and_odd(right), strict=True)
        even, odd = (intrinsic(f"int32x{self.lanes}", self.products, *pair) for pair in pairs)
        return even, odd
