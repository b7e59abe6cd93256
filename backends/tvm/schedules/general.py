"""The schedule of every kernel that has none of its own: parallel outside, contiguous inside, sums in registers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.vector import Vector

PARALLEL_WORK = 1 << 15  # element operations below which starting threads costs more than it gains


@dataclass(frozen=True)
class GeneralSchedule:
    """Every block on its own."""

    def __call__(self, sch: Any, vector: Vector) -> None:
        for block in sch.get_child_blocks(sch.get_sblock("root")):
            _schedule_block(sch, block, vector)


def _schedule_block(sch: Any, block: Any, vector: Vector) -> None:
    loops = sch.get_loops(block)
    kinds = [int(axis.iter_type) for axis in sch.get(block).iter_vars]
    extents = [int(sch.get(loop).extent) for loop in loops]
    space = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != 0]
    width = extents[len(space) - 1] if space else 1
    lanes_last = width % vector.lanes == 0
    outer, inner = space[:-1], space[-1]
    if lanes_last and width > vector.lanes:
        more, inner = sch.split(inner, [None, vector.lanes])
        outer = [*outer, more]
    if reduced:
        sch.reorder(*outer, *reduced, inner) if lanes_last else sch.reorder(*outer, inner, *reduced)
    if lanes_last:
        sch.vectorize(inner)
    if outer and math.prod(extents) >= PARALLEL_WORK:
        sch.parallel(sch.fuse(*outer))
    if reduced and lanes_last:
        sch.decompose_reduction(block, reduced[0])
