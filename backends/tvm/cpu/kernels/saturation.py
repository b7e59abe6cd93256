"""Steps of a reduction some of which could leave 16 bits: one look at the saturation mask of a group tells whether none
of its steps can, so that those stand in a row without branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_

from tvm import tirx

from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load, loop

GROUP = 8  # steps that are worth a look

Body = Callable[[Expr, bool], Stmt]  # turn, whether its steps look at their own part of the mask


@dataclass(frozen=True)
class SaturationMask:
    """``mask`` ``[blocks, steps]`` is not 0 where the weights of a step could saturate; a step takes those of all
    ``blocks`` of a tile."""

    mask: Buffer
    blocks: tuple[Expr, ...]

    @classmethod
    def of(cls, mask: Buffer | None, first: Expr, count: int) -> SaturationMask | None:
        """The mask of so many blocks from ``first`` on; None where nothing can saturate."""
        return None if mask is None else cls(mask, tuple(first + number for number in range(count)))

    def each_turn(self, extent: int, steps: int, first: Expr, body: Body) -> Stmt:
        """Run ``body`` for each turn below ``extent``, of so many ``steps`` each, the first being step ``first``."""
        size = max(1, min(GROUP // steps, extent))

        def group(start: Expr, turns: int) -> Stmt:
            plain = block(*(body(start + turn, False) for turn in range(turns)))
            masked = loop(turns, lambda turn: body(start + turn, True), name="masked")
            return tirx.IfThenElse(self.any(first + start * steps, turns * steps), masked, plain)

        groups, rest = divmod(extent, size)
        whole = loop(groups, lambda number: group(number * size, size), name="group")
        return block(whole, group(groups * size, rest)) if rest else whole

    def any(self, first: Expr, count: int = 1) -> Expr:
        """Whether one of so many neighbouring steps could saturate; the mask is read eight steps at a time."""
        size = 1 << min(count.bit_length() - 1, 3)
        starts = sorted({*range(0, count - size + 1, size), count - size})
        parts = [load(self.mask, [block, first + start], size) for block in self.blocks for start in starts]
        return reduce(or_, (tirx.reinterpret(f"int{8 * size}", part) for part in parts)) != 0
