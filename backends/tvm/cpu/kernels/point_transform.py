"""Vector code that multiplies by the matrices of minimal filtering, and makes use of their symmetry."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from lvc.backends.tvm.nest import Buffer, Expr, Stmt, load, scratch, splat, store
from lvc.compiler.ir.cook_toom import Row


class Registers:
    """Vectors that are computed once and used several times; the statements that compute them, in order."""

    def __init__(self, lanes: int, dtype: str = "float32") -> None:
        self.lanes, self.dtype = lanes, dtype
        self.buffers: list[Buffer] = []
        self.statements: list[Stmt] = []

    def keep(self, value: Expr) -> Expr:
        """Compute a vector here; return the expression that reads it."""
        buffer = scratch([self.lanes], "r", self.dtype)
        self.buffers.append(buffer)
        self.statements.append(store(buffer, value, [0], self.lanes))
        return load(buffer, [0], self.lanes)

    def dot(self, row: Sequence[float], values: Sequence[Expr]) -> Expr:
        """The sum of vectors times numbers, those times one first; each step is one multiply-add."""
        terms = [(c, v) for c, v in zip(row, values, strict=True) if c]
        terms.sort(key=lambda term: abs(term[0]) != 1)
        total = None
        for factor, value in terms:
            if total is None:
                total = value if factor == 1 else value * self.number(factor)
            elif factor in (1, -1):
                total = total + value if factor == 1 else total - value
            else:
                total = total + value * self.number(factor)
        return total

    def number(self, value: float) -> Expr:
        """The same number in every lane."""
        return splat(tirx.const(value, "float32"), self.lanes)

    def to_points(self, matrix: Sequence[Row], values: Sequence[Expr]) -> list[Expr]:
        """``G`` or ``B'`` times vectors. The rows of p and -p differ in the sign of every other number."""
        if len(matrix) == 1:
            return list(values)
        first, *pairs, last = matrix
        results = [self.dot(first, values)]
        for row in pairs[::2]:
            scale = [c for c in row[1::2] if c][-1]
            even = self.keep(self.dot(row[::2], values[::2]))
            odd = self.keep(self.dot([c / scale for c in row[1::2]], values[1::2])) * self.number(scale)
            results += [even + odd, even - odd]
        return [*results, self.dot(last, values)]

    def to_outputs(self, matrix: Sequence[Row], values: Sequence[Expr]) -> list[Expr]:
        """``A'`` times vectors. The columns of p and -p are equal in even rows and opposite in odd ones."""
        if len(matrix) == 1:
            return list(values)
        first, *pairs, last = values
        both = list(zip(pairs[::2], pairs[1::2], strict=True))
        totals = [self.keep(a + b) for a, b in both]
        differences = [self.keep(a - b) for a, b in both]
        results = []
        for number, row in enumerate(matrix):
            middle = differences if number % 2 else totals
            results.append(self.dot([row[0], *row[1:-1:2], row[-1]], [first, *middle, last]))
        return results
