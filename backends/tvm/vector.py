"""The vector unit that schedules write for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vector:
    """How many f32 lanes a vector register has, and how many such registers there are."""

    lanes: int
    registers: int
