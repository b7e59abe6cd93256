"""Steps of a reduction where some weights are risky: one look at the marks of a group tells whether all of its steps
are the usual ones, so that these stand in a row without branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.nest import Buffer, Expr, Stmt, block, load, loop

GROUP = 8  # steps that are worth a look

Body = Callable[[Expr, bool], Stmt]  # turn, whether its steps look at their own marks


@dataclass(frozen=True)
class Marks:
    """``guards`` ``[blocks, steps]`` are not 0 where the weights of a step are risky; a step takes those of all
    ``blocks`` of a tile."""

    guards: Buffer
    blocks: tuple[Expr, ...]

    @classmethod
    def of(cls, guards: Buffer | None, first: Expr, count: int) -> Marks | None:
        """The marks of so many blocks from ``first`` on; None where no weights are risky."""
        return None if guards is None else cls(guards, tuple(first + number for number in range(count)))

    def guard(self, extent: int, steps: int, first: Expr, body: Body) -> Stmt:
        """Run ``body`` for each turn below ``extent``, of so many ``steps`` each, the first being step ``first``."""
        size = max(1, min(GROUP // steps, extent))

        def group(start: Expr, turns: int) -> Stmt:
            plain = block(*(body(start + turn, False) for turn in range(turns)))
            watched = loop(turns, lambda turn: body(start + turn, True), name="watched")
            return tirx.IfThenElse(self.any(first + start * steps, turns * steps), watched, plain)

        groups, rest = divmod(extent, size)
        whole = loop(groups, lambda number: group(number * size, size), name="group")
        return block(whole, group(groups * size, rest)) if rest else whole

    def any(self, first: Expr, count: int = 1) -> Expr:
        """Whether one of so many neighbouring steps is risky; marks are read eight at a time."""
        size = 1 << min(count.bit_length() - 1, 3)
        starts = sorted({*range(0, count - size + 1, size), count - size})
        marks = [load(self.guards, [block, first + start], size) for block in self.blocks for start in starts]
        return reduce(or_, (tirx.reinterpret(f"int{8 * size}", mark) for mark in marks)) != 0
