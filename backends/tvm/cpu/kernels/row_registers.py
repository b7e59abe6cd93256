"""The scalars' side of a register tile by the register, for cores in order: there each load takes an issue slot from a
multiply-add, so that one load brings the words of several steps, and each step takes its own out of their register.

Such cores load 64 bits at a time, which are two words: a load of 128 holds up what follows for two cycles, as was
measured on Cortex-A53 and A55 by others (ncnn, "arm a53 a55 dual issue").
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import DotOperand
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Expr, Stmt, allocate, block, int32, load, scratch, store

Scalar = Callable[[int], Expr]  # number of a scalar of the tile: its word

WORDS = 2
MOST_REGISTERS = 30
"""For the sums of a tile, its vectors, and a register of words for each of its scalars."""


def takes_rows(operand: DotOperand, vector: Vector) -> bool:
    """Whether words come by the register, where those of several steps lie side by side."""
    is_by_register = operand.elements == 1 or (operand.neighbours > operand.rows)
    return vector.machine.in_order and bool(vector.isa.fenced) and is_by_register and not operand.held


def fits_rows(vectors: int, scalars: int) -> bool:
    """Whether there are registers for such a tile."""
    return vectors * scalars + vectors + scalars <= MOST_REGISTERS


def by_neighbours(
    sums: Accumulators, operand: DotOperand, read: Callable[[int, int], Expr], step: Callable[[Scalar], Stmt]
) -> Stmt:
    """Run one ``step(scalar)``, where ``read(scalar, count)`` reads the words of so many neighbouring scalars from one
    on."""
    rows = [scratch([WORDS], "row", operand.packed) for _ in range(0, sums.scalars, WORDS)]

    def word_of(scalar: int) -> Expr:
        number, place = divmod(scalar, WORDS)
        return tirx.Shuffle([load(rows[number], [0], WORDS)], [int32(place)])

    fill = [store(register, read(number * WORDS, WORDS), [0], WORDS) for number, register in enumerate(rows)]
    return allocate(rows, *fill, step(word_of))


def by_rows(
    steps: int,
    sums: Accumulators,
    operand: DotOperand,
    row: Callable[[int, int], Expr],
    step: Callable[[int, Scalar], Stmt],
) -> Stmt:
    """Run ``step(number, scalar)`` for so many steps, a multiple of `WORDS`, where ``row(scalar, first)`` reads the
    words of as many steps from the first on for a scalar of the tile."""
    rows = [scratch([WORDS], "row", operand.packed) for _ in range(sums.scalars)]

    def words_of(place: int) -> Scalar:
        return lambda scalar: tirx.Shuffle([load(rows[scalar], [0], WORDS)], [int32(place)])

    def turn(first: int) -> Stmt:
        fill = [store(register, row(scalar, first), [0], WORDS) for scalar, register in enumerate(rows)]
        return block(*fill, *(step(first + place, words_of(place)) for place in range(WORDS)))

    return allocate(rows, block(*(turn(first) for first in range(0, steps, WORDS))))
