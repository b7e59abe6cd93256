"""The scalars' side of a register tile by the register, for cores in order: there each load takes an issue slot from a
multiply-add, so that one load brings the words of several steps, and each step takes its own out of their register."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import DotOperand
from lvc.backends.tvm.cpu.kernels.nest import Expr, Stmt, allocate, block, int32, load, scratch, store
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.cpu.vector import Vector

Scalar = Callable[[int], Expr]  # number of a scalar of the tile: its word

MOST_REGISTERS = 30
"""For the sums of a tile, its vectors, and a register of words for each of its scalars."""


def takes_rows(operand: DotOperand, vector: Vector) -> bool:
    """Whether words come by the register, where those of several steps lie side by side."""
    return vector.machine.in_order and bool(vector.isa.fenced) and operand.elements == 1


def fits_rows(vectors: int, scalars: int) -> bool:
    """Whether there are registers for such a tile."""
    return vectors * scalars + vectors + scalars <= MOST_REGISTERS


def by_rows(
    sums: Accumulators, operand: DotOperand, row: Callable[[int], Expr], step: Callable[[int, Scalar], Stmt]
) -> Stmt:
    """Run ``step(number, scalar)`` for as many steps as a register has lanes, where ``row(number)`` reads the words of
    all of them for a scalar of the tile."""
    rows = [scratch([sums.lanes], "row", operand.packed) for _ in range(sums.scalars)]

    def words_of(number: int) -> Scalar:
        return lambda scalar: tirx.Shuffle([load(rows[scalar], [0], sums.lanes)], [int32(number)])

    fill = [store(register, row(scalar), [0], sums.lanes) for scalar, register in enumerate(rows)]
    return allocate(rows, block(*fill, *(step(number, words_of(number)) for number in range(sums.lanes))))
