"""Which instruction set code for a processor uses."""

from __future__ import annotations

from collections.abc import Collection

from lvc.backends.tvm.cpu.isa.avx2 import Avx2
from lvc.backends.tvm.cpu.isa.avx512 import Avx512
from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet
from lvc.backends.tvm.cpu.isa.sse import Sse

WIDEST_FIRST: tuple[type[InstructionSet], ...] = (Avx512, Avx2, Sse)


def widest(features: Collection[str]) -> InstructionSet:
    """The one with the widest vectors of those that a processor has."""
    return next((known.of(features) for known in WIDEST_FIRST if known.feature in features), Sse())


def parts_that_multiply(element: str) -> list[str]:
    """The parts of instruction sets with an instruction that multiplies and adds elements of a type."""
    return [known.dot_features[element] for known in WIDEST_FIRST if element in known.dot_features]
