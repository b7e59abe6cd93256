"""The schedule of every kernel that has none of its own: parallel outside, contiguous inside, sums in registers.

Loops are never fused: TVM 0.27 simplifies indices of a fused loop wrongly where two of its parts are shifted, as they
are after a roll.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.vector import Vector

PARALLEL_WORK = 1 << 15  # element operations below which starting threads costs more than it gains
ENOUGH_TASKS = 8


@dataclass(frozen=True)
class GeneralSchedule:
    """Every block on its own."""

    def __call__(self, sch: Any, vector: Vector) -> None:
        for block in sch.get_child_blocks(sch.get_sblock("root")):
            schedule_block(sch, block, vector)


def schedule_block(sch: Any, block: Any, vector: Vector) -> None:
    """Schedule the loops of one block that stands alone."""
    loops = sch.get_loops(block)
    kinds = [int(axis.iter_type) for axis in sch.get(block).iter_vars]
    work = math.prod(_extent(sch, loop) for loop in loops)
    space = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != 0]
    *outer, inner = space
    is_vector = _extent(sch, inner) % vector.lanes == 0
    if is_vector and _extent(sch, inner) > vector.lanes:
        more, inner = sch.split(inner, [None, vector.lanes])
        outer.append(more)
    if outer and work >= PARALLEL_WORK:
        first = _parallel_loop(sch, outer)
        outer = [first, *(loop for loop in outer if loop is not first)]
        sch.parallel(first)
    sch.reorder(*outer, *reduced, inner) if is_vector else sch.reorder(*outer, inner, *reduced)
    if is_vector:
        sch.vectorize(inner)
        if reduced:
            sch.decompose_reduction(block, reduced[0])


def _parallel_loop(sch: Any, outer: list[Any]) -> Any:
    """The outermost loop with enough iterations to share, else the longest."""
    enough = (loop for loop in outer if _extent(sch, loop) >= ENOUGH_TASKS)
    return next(enough, max(outer, key=lambda loop: _extent(sch, loop)))


def _extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)
