"""The vector unit that schedules write for."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.backends.tvm.cpu.isa.instruction_set import InstructionSet
from lvc.backends.tvm.cpu.machine import GENERIC, Machine


@dataclass(frozen=True)
class Vector:
    """The instruction set that a kernel is written in, and the core that runs it."""

    isa: InstructionSet
    machine: Machine = GENERIC

    @property
    def lanes(self) -> int:
        """The float32 lanes of a register."""
        return self.isa.lanes

    @property
    def registers(self) -> int:
        """How many registers there are."""
        return self.isa.registers

    @property
    def bytes(self) -> int:
        """The bytes of a register."""
        return 4 * self.lanes
