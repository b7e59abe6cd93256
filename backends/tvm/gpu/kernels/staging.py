"""Factors by way of shared memory, which has room for several steps: one is multiplied while others are on their
way."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from lvc.backends.tvm.gpu.launch import barrier, commit, wait, when
from lvc.backends.tvm.nest import Expr, Stmt, block, loop


def staged(
    steps: int, fetch: Callable[[Expr], Stmt], stash: Callable[[Expr], Stmt], multiply: Callable[[Expr], Stmt]
) -> Stmt:
    """So many steps, by way of registers and room for two: ``fetch(step)`` loads one into registers, ``stash(half)``
    puts what was loaded into a half of shared memory, ``multiply(half)`` adds the products of what is there."""
    zero = tirx.const(0, "int32")

    def turn(step: Expr) -> Stmt:
        return block(fetch(step + 1), multiply(tirx.floormod(step, 2)), stash(tirx.floormod(step + 1, 2)), barrier())

    return block(
        fetch(zero),
        stash(zero),
        barrier(),
        *([loop(steps - 1, turn, name="step")] if steps > 1 else []),
        multiply(tirx.const((steps - 1) % 2, "int32")),
    )


def copied_ahead(
    steps: int, stages: int, fetch: Callable[[Expr, Expr], Stmt], multiply: Callable[[Expr], Stmt]
) -> Stmt:
    """So many steps with room for so many ``stages``: ``fetch(step, stage)`` has a step copied into a part of shared
    memory, ``multiply(stage)`` adds the products of what is there. All but one of the parts are on their way."""

    def turn(step: Expr) -> Stmt:
        later = step + (stages - 1)
        fetched = fetch(later, tirx.floormod(later, stages))
        return block(
            wait(stages - 2),
            barrier(),  # what others have copied is there, and nobody multiplies any more what is overwritten now
            *([when(later < steps, fetched)] if steps >= stages else []),
            commit(),
            multiply(tirx.floormod(step, stages)),
        )

    def begin(step: int) -> Stmt:
        number = tirx.const(step, "int32")
        return block(*([fetch(number, number)] if step < steps else []), commit())

    return block(*map(begin, range(stages - 1)), loop(steps, turn, name="step", start=tirx.const(0, "int32")))
