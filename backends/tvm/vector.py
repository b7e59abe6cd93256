"""The vector unit that schedules write for."""

from __future__ import annotations

from dataclasses import dataclass

from lvc.backends.tvm.machine import GENERIC, Machine


@dataclass(frozen=True)
class Vector:
    """How many f32 lanes a vector register has, how many such registers there are, and the types for which there is an
    instruction that multiplies and adds all elements of 32-bit words; and the core that it is part of."""

    lanes: int
    registers: int
    dots: tuple[str, ...] = ()
    machine: Machine = GENERIC

    @property
    def bytes(self) -> int:
        """The bytes of a register."""
        return 4 * self.lanes
