"""SSE4.2 and what came before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.x86 import X86


@dataclass(frozen=True)
class Sse(X86):
    """Vectors of 128 bits."""

    name: ClassVar[str] = "SSE"
    feature: ClassVar[str] = "ssse3"
    lanes: ClassVar[int] = 4
    registers: ClassVar[int] = 16
    bytes_by_two: ClassVar[str] = "llvm.x86.ssse3.pmadd.ub.sw.128"
    halves_by_two: ClassVar[str] = "llvm.x86.sse2.pmadd.wd"
