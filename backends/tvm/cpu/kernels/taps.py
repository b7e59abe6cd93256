"""The taps of a window that the outputs of a tile meet, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lvc.backends.tvm.cpu.kernels.phases import Phase
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.nest import Expr, Stmt, block, loop
from lvc.compiler.ir.bounds import FLOAT16_TERMS


@dataclass(frozen=True)
class Taps:
    """Those of a ``phase`` for the tile of ``sums`` at a ``place``, a row and a column; those outside the image as well
    where ``is_whole``. Of a row of at most so many ``written`` taps each stands in the code by itself."""

    phase: Phase
    place: tuple[Expr, Expr]
    sums: Accumulators
    is_whole: bool
    written: int

    def each(self, body: Callable[[Expr, Expr], Stmt], steps: int) -> Stmt:
        """Run ``body`` for every tap, each time so many steps; of short sums carry those over that would be too many
        at the end."""
        rows, columns = self.phase
        (row, column), sums = self.place, self.sums
        lines = (0, rows.taps) if self.is_whole else rows.taps_inside(row)
        first, count = (0, columns.taps) if self.is_whole else columns.taps_inside(column, sums.scalars)
        each_tap = columns.taps * steps > FLOAT16_TERMS
        each_line = not each_tap and rows.taps * columns.taps * steps > FLOAT16_TERMS

        def tap(y: Expr, x: Expr) -> Stmt:
            return sums.carried(body(y, x)) if each_tap else body(y, x)

        def line(y: Expr) -> Stmt:
            if isinstance(count, int) and count <= self.written:
                whole = block(*(tap(y, first + x) for x in range(count)))
            else:
                whole = loop(count, lambda x: tap(y, x), name="kx", start=first)
            return sums.carried(whole) if each_line else whole

        return loop(lines[1], line, name="ky", start=lines[0])
