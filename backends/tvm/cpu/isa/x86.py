"""What the vectors of all x86 processors have in common: products of bytes that are summed in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.code import intrinsic, signed_bytes, unsigned_bytes
from lvc.backends.tvm.cpu.isa.instruction_set import Expr, InstructionSet, Pairs


@dataclass(frozen=True)
class X86(InstructionSet):
    """``vpmaddubsw`` and ``vpmaddwd`` of any width. The cycles are those of AVX2 as measured on Zen 3."""

    chain_cycles: ClassVar[Mapping[int, float]] = MappingProxyType({0: 2.2, 1: 1.0, 2: 0.82})
    pairs: ClassVar[Pairs | None] = Pairs(0.65)
    narrows: ClassVar[bool] = True
    prefetches: ClassVar[bool] = True
    seven_bits: ClassVar[str] = "since it has no VNNI: try the preset int8-avx2"

    bytes_by_two: ClassVar[str]  # the instructions by LLVM's names
    halves_by_two: ClassVar[str]

    def sum_of_two(self, left: Expr, right: Expr) -> Expr:
        return intrinsic(f"int16x{2 * self.lanes}", self.bytes_by_two, unsigned_bytes(right), signed_bytes(left))

    def dot_of_two(self, left: Expr, right: Expr) -> Expr:
        return intrinsic(f"int32x{self.lanes}", self.halves_by_two, left, right)

    def _vpdpbusd(self, sums: Expr, left: Expr, right: Expr) -> Expr:
        """Four products of bytes and the sums, in one instruction for 4 lanes or more."""
        lanes = sums.ty.dtype.lanes
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return intrinsic(f"int32x{lanes}", name, sums, unsigned_bytes(right), signed_bytes(left))
