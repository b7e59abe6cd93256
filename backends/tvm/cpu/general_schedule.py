"""The schedule of every kernel that has none of its own: parallel outside, contiguous inside, sums in registers.

Loops are never fused: TVM 0.27 simplifies indices of a fused loop wrongly where two of its parts are shifted, as they
are after a roll.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.cpu.kernels.channel_moves import channel_move
from lvc.backends.tvm.cpu.kernels.parts import ENOUGH_TASKS, PARALLEL_WORK
from lvc.backends.tvm.cpu.kernels.unblocking import unblocking
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.fused import write_nest


@dataclass(frozen=True)
class GeneralSchedule:
    """Stages that begin with the same dimensions share the loops over them, so that what is between them stays in the
    cache; other stages stand alone, and so do all stages that are read at indices from data (``apart``), of which TVM
    cannot say which part is read."""

    apart: bool = False

    def __call__(self, sch: Any, vector: Vector) -> None:
        blocks = sch.get_child_blocks(sch.get_sblock("root"))
        shared = _shared_loops(sch, blocks)
        if len(blocks) > 1 and shared and not self.apart:
            _schedule_together(sch, blocks, shared, vector)
            return
        for kind in (channel_move, unblocking) if len(blocks) == 1 else ():
            if move := kind(sch, blocks[0], vector):
                write_nest(sch, move.build())
                return
        for block in blocks:
            schedule_block(sch, block, vector)


def _shared_loops(sch: Any, blocks: list[Any]) -> int:
    """How many outer dimensions all blocks have in common, of those that are not 1 at the end."""
    extents = [_space_extents(sch, block) for block in blocks]
    count = 0
    for column in zip(*extents, strict=False):
        if len(set(column)) != 1:
            break
        count += 1
    count = max(0, min(count, *(len(row) - 1 for row in extents)))  # a nest that states itself has no dimensions
    while count and extents[0][count - 1] == 1:
        count -= 1
    return count


def _space_extents(sch: Any, block: Any) -> list[int]:
    axes = sch.get(block).iter_vars
    return [
        _extent(sch, loop) for loop, axis in zip(sch.get_loops(block), axes, strict=True) if int(axis.iter_type) == 0
    ]


def _schedule_together(sch: Any, blocks: list[Any], shared: int, vector: Vector) -> None:
    """Compute all stages inside the shared loops of the last one."""
    *stages, last = blocks
    work = sum(math.prod(_extent(sch, loop) for loop in sch.get_loops(block)) for block in blocks)
    outer = sch.get_loops(last)[:shared]
    first = _parallel_loop(sch, outer, vector)
    outer = [first, *(loop for loop in outer if loop is not first)]
    sch.reorder(*outer)
    for stage in reversed(stages):
        sch.compute_at(stage, outer[-1], preserve_unit_loops=True)
    if work >= PARALLEL_WORK:
        sch.parallel(first)
    for block in blocks:
        _vectorise_inside(sch, block, shared, vector)


def _vectorise_inside(sch: Any, block: Any, shared: int, vector: Vector) -> None:
    """Put a block's sums outside of its last dimension and make that a vector, where it is a multiple of them."""
    loops = sch.get_loops(block)[shared:]
    kinds = [int(axis.iter_type) for axis in sch.get(block).iter_vars][-len(loops) :]
    space = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != 0]
    if not space or _extent(sch, space[-1]) % vector.lanes:
        return
    more, inner = sch.split(space[-1], [None, vector.lanes])
    sch.reorder(*space[:-1], more, *reduced, inner)
    sch.vectorize(inner)
    if reduced:
        sch.decompose_reduction(block, reduced[0])


def schedule_block(sch: Any, block: Any, vector: Vector) -> None:
    """Schedule the loops of one block that stands alone."""
    loops = sch.get_loops(block)
    if not loops:
        return  # it states its own nest
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
        first = _parallel_loop(sch, outer, vector)
        outer = [first, *(loop for loop in outer if loop is not first)]
        sch.parallel(first)
    sch.reorder(*outer, *reduced, inner) if is_vector else sch.reorder(*outer, inner, *reduced)
    if is_vector:
        sch.vectorize(inner)
        if reduced:
            sch.decompose_reduction(block, reduced[0])


def _parallel_loop(sch: Any, outer: list[Any], vector: Vector) -> Any:
    """The outermost loop with enough iterations to share, else the longest."""
    wanted = max(ENOUGH_TASKS, vector.machine.threads)
    enough = (loop for loop in outer if _extent(sch, loop) >= wanted)
    return next(enough, max(outer, key=lambda loop: _extent(sch, loop)))


def _extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)
