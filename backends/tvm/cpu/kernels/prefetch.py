"""Weights fetched ahead of their use.

In a network no cache holds a layer's weights when its turn comes, and what processors fetch by themselves ends with the
page, or does not keep up with products of short types.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, int32

_READ, _SECOND_LEVEL, _DATA = 0, 2, 1  # arguments of llvm.prefetch


def prefetch(buffer: Buffer, index: Sequence[Expr]) -> Stmt:
    """Have the line of an element brought to the second level while work goes on; it may lie behind the last one."""
    address = tirx.address_of(tirx.BufferLoad(buffer, [int32(i) for i in index]))
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, *map(int32, (_READ, _SECOND_LEVEL, _DATA))))


def prefetch_pays(passes: int, vector: Vector) -> bool:
    """Whether to fetch the weights of the next tile, where this tile goes through its own so many times.

    Each pass costs the issue of one more load for each vector. What is saved is the time in which it comes from memory,
    once.
    """
    machine = vector.machine
    return vector.isa.prefetches and passes / machine.loads < vector.bytes / machine.memory_rate
