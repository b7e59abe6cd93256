"""Factors by way of registers and shared memory, which has room for two steps: one is multiplied while the next one is
on its way."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from lvc.backends.tvm.gpu.launch import barrier
from lvc.backends.tvm.nest import Expr, Stmt, block, loop


def staged(
    steps: int, fetch: Callable[[Expr], Stmt], stash: Callable[[Expr], Stmt], multiply: Callable[[Expr], Stmt]
) -> Stmt:
    """So many steps: ``fetch(step)`` loads one into registers, ``stash(half)`` puts what was loaded into a half of
    shared memory, ``multiply(half)`` adds the products of what is there."""
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
