"""The launches of every kernel that has none of its own.

Where all stages read each other at the same element, a thread makes a few neighbours of the result. Where they have
rows in common, as softmax and normalisations have, a block of threads makes one row, its stages in shared memory with
barriers between them, and divides long sums. Other stages are launches of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvc.backends.tvm.gpu.launch import WARP, Launches
from lvc.backends.tvm.gpu.pointwise import write_elements
from lvc.backends.tvm.gpu.rows import MOST_THREADS, fits, write_rows
from lvc.backends.tvm.gpu.stages import Nest, Stage, shared_dimensions, stages_of

LONG = 32  # terms of a sum that are worth several threads, where there are too few sums
FEW_LANES = 8  # neighbouring sums that one block makes at once


@dataclass(frozen=True)
class GeneralSchedule:
    """With stages that stand ``apart`` each is a launch of its own: they are read at indices from data."""

    apart: bool = False

    def __call__(self, sch: Any, launches: Launches) -> None:
        stages = stages_of(sch)
        together = [stage for stage in stages if isinstance(stage, Stage)]
        if not self.apart and together == stages and _write_together(together, launches):
            return
        launches.scratch += [stage.buffer for stage in stages[:-1]]
        for stage in stages:
            if isinstance(stage, Nest):
                launches.add(stage.blocks, stage.threads, stage.at)
            else:
                assert _write_together([stage], launches)


def _write_together(stages: Sequence[Stage], launches: Launches) -> bool:
    """One launch for stages; False if they cannot share one."""
    dimensions = {len(stage.extents) for stage in stages}
    shared = shared_dimensions(stages)
    if dimensions == {shared}:
        if not _wants_teams(stages, launches):
            write_elements(stages, launches)
            return True
        shared -= 1 if shared and stages[-1].extents[-1] <= FEW_LANES else 0
    if not fits(stages, shared) or (shared == 0 and len(stages) > 1 and _is_large(stages)):
        return False
    write_rows(stages, shared, launches)
    return True


def _wants_teams(stages: Sequence[Stage], launches: Launches) -> bool:
    """Whether there are too few elements for a thread to sum up each alone."""
    depth = max(stage.depth for stage in stages)
    is_divisible = all(stage.term is not None for stage in stages if stage.reduced)
    most = launches.gpu.multiprocessors * MOST_THREADS
    return depth >= LONG and is_divisible and stages[-1].elements * WARP <= most * FEW_LANES


def _is_large(stages: Sequence[Stage]) -> bool:
    """Whether one block would be the only one to work for long."""
    return sum(math.prod((stage.elements, stage.depth)) for stage in stages) > 64 * MOST_THREADS
