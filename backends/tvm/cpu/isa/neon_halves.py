"""NEON of 64-bit ARM for models that compute in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lvc.backends.tvm.cpu.isa.instruction_set import Pairs
from lvc.backends.tvm.cpu.isa.neon import Neon


@dataclass(frozen=True)
class NeonHalves(Neon):
    """As many lanes as a register has halves, so that blocks of channels are as wide; a vector of float32 takes two
    registers. It has no steps for bytes, whose instructions sum in four lanes."""

    lanes: ClassVar[int] = 8
    registers: ClassVar[int] = 10
    fenced: ClassVar[int] = 12
    float_registers: ClassVar[int] = 2
    dot_features: ClassVar[Mapping[str, str]] = MappingProxyType({"float16": "fullfp16"})
    matrix_features: ClassVar[Mapping[str, str]] = MappingProxyType({})
    pairs: ClassVar[Pairs | None] = None
