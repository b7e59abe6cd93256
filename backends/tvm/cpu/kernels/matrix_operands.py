"""Operands that an instruction multiplies as small matrices: two words of each of two scalars with two words of each of
two lanes, whose sums fill a register.

A vector of weights is then two registers with two words of half of its lanes each, and two scalars lie side by side:
two words of the one, then two of the other. The sums of a tile are regrouped when all is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from lvc.backends.tvm.cpu.kernels.dot_operands import Bfloat16Pair, DotOperand, StepCost
from lvc.backends.tvm.cpu.kernels.fence import declared
from lvc.backends.tvm.cpu.kernels.integer_operands import IntegerQuad
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Expr, Stmt

LATENCY = {"uint8": 3, "bfloat16": 5}
"""Cycles after which the sums of such an instruction may take another one, on Neoverse V1 (llvm-mca)."""


@dataclass(frozen=True)
class MatrixOperand(DotOperand):
    """What `DotOperand` promises, of the type that its other base class is for."""

    rows: ClassVar[int] = 2
    neighbours: ClassVar[int] = 2

    @property
    def words_per_step(self) -> int:
        return self.rows

    def step_cost(self, vector: Vector) -> StepCost:
        return StepCost(1 / (vector.machine.multiply_adds * self.rows), LATENCY[self.name] / self.rows)

    def count(self, elements: int) -> int:
        return -(-elements // self.depth) * self.rows

    def weight(self, packed: Any, place: tuple[Expr, ...]) -> Expr:
        *outer, element, column = place
        step, inside = tirx.floordiv(element, self.depth), tirx.floormod(element, self.depth)
        lanes = int(packed.shape[-1])
        number = column * self.rows + tirx.floordiv(inside, self.elements)
        word = packed[(*outer, step * self.rows + tirx.floordiv(number, lanes), tirx.floormod(number, lanes))]
        return self.value(word, tirx.floormod(inside, self.elements))

    def add_product(self, vector: Vector, sums: Expr, left: Expr, right: Expr) -> Expr:
        return vector.isa.matrix_product(self.name, sums, left, right)

    def add_products(
        self, vector: Vector, sums: Expr, factors: Sequence[tuple[Expr, Expr]], may_saturate: bool = False
    ) -> Expr:
        return DotOperand.add_products(self, vector, sums, factors)

    def around(self, nest: Stmt, vector: Vector) -> Stmt:
        return declared(nest, vector, vector.isa.declarations(self.name))

    def _in_matrices(self, words: np.ndarray, axis: int) -> np.ndarray:
        """Packed words ``[.., words, lanes]`` in the order of the steps that take them, zeros after the last."""
        *outer, count, lanes = np.moveaxis(words, axis, -2).shape
        padded = np.pad(np.moveaxis(words, axis, -2), [*[(0, 0)] * len(outer), (0, count % self.rows), (0, 0)])
        steps = padded.reshape(*outer, -1, self.rows, lanes).swapaxes(-1, -2)
        return np.ascontiguousarray(np.moveaxis(steps.reshape(*outer, -1, lanes), -2, axis))


@dataclass(frozen=True)
class QuadMatrix(MatrixOperand, IntegerQuad):
    """Bytes as `IntegerQuad` has them."""

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return self._in_matrices(IntegerQuad.pack(self, values, axis), axis)


@dataclass(frozen=True)
class Bfloat16Matrix(MatrixOperand, Bfloat16Pair):
    """Products of bfloat16, summed by two and rounded as the instruction does it."""

    def pack(self, values: np.ndarray, axis: int) -> np.ndarray:
        return self._in_matrices(Bfloat16Pair.pack(self, values, axis), axis)


BFLOAT16_MATRIX: DotOperand = Bfloat16Matrix()
