"""Loop nests as values: the few combinators that every kernel is written with.

TVM's schedule primitives cannot cut a loop into tiles of two sizes, which is what keeps every register tile full on
images of 7, 13 or 55 pixels; so the kernels state their nests directly, in the same TIR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

Expr = Any  # a TIR expression; TVM's own types are not annotated
Stmt = Any
Buffer = Any
Body = Callable[[Expr], Stmt]

SERIAL, PARALLEL, VECTORISED, UNROLLED = (
    tirx.ForKind.SERIAL,
    tirx.ForKind.PARALLEL,
    tirx.ForKind.VECTORIZED,
    tirx.ForKind.UNROLLED,
)


def loop(extent: Expr, body: Body, kind: Any = SERIAL, name: str = "i", start: Expr = 0) -> Stmt:
    """Run ``body(index)`` for each index in ``[start, start + extent)``; a loop of one iteration is its body."""
    if isinstance(extent, int) and extent == 1:
        return body(start)
    variable = tirx.Var(name, "int32")
    return tirx.For(variable, tirx.const(0, "int32"), int32(extent), kind, body(start + variable))


UNROLL = 8
"""Steps of a reduction in one turn of its loop, where nothing else is chosen. Code that grew with a model's kernels and
windows would take LLVM minutes: its time grows faster than the code."""


def in_turns(extent: int, body: Callable[[Expr, int], Stmt], steps: int = UNROLL) -> Stmt:
    """Run ``body(first, count)`` for every so many indices below an extent, a turn of a loop each, and for the rest."""
    turns, rest = divmod(extent, steps)
    statements = [loop(turns, lambda i: body(i * steps, steps), name="turn")] if turns else []
    return block(*statements, *([body(turns * steps, rest)] if rest else []))


def unrolled(extent: int, body: Body, steps: int = UNROLL) -> Stmt:
    """Run ``body(index)`` for each index below ``extent``, so many steps in one turn of a loop."""

    def turn(first: Expr, count: int) -> Stmt:
        return loop(count, lambda step: body(first + step), UNROLLED, "step")

    return in_turns(extent, turn, steps)


def block(*statements: Stmt) -> Stmt:
    """One statement after the other."""
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def grid(extents: Sequence[int], body: Callable[..., Stmt]) -> Stmt:
    """Nested serial loops, the first extent outermost; ``body`` takes all indices."""
    if not extents:
        return body()
    return loop(extents[0], lambda i: grid(extents[1:], lambda *rest: body(i, *rest)))


def tasks(extents: Sequence[int], body: Callable[..., Stmt]) -> Stmt:
    """One parallel loop over all combinations of indices, the first extent outermost."""

    def split(task: Expr) -> Stmt:
        indices = []
        for extent in reversed(extents[1:]):
            indices.append(tirx.floormod(task, extent) if extent > 1 else 0)
            task = tirx.floordiv(task, extent) if extent > 1 else task
        return body(task, *reversed(indices))

    return loop(math.prod(extents), split, PARALLEL, "task")


def scratch(shape: Sequence[int], name: str, dtype: str = "float32") -> Buffer:
    """A buffer that lives where `allocate` puts it; on the stack, where LLVM finds it, if it has less than 1 KiB."""
    return tirx.decl_buffer(list(shape), dtype, name)


def allocate(buffers: Sequence[Buffer], *body: Stmt) -> Stmt:
    """Statements with scratch buffers at their hand."""
    return block(*(tirx.AllocBuffer(buffer) for buffer in buffers), *body)


def load(buffer: Buffer, index: Sequence[Expr], lanes: int = 1) -> Expr:
    """Read one element, or ``lanes`` neighbours along the last dimension."""
    return tirx.BufferLoad(buffer, _lanes(index, lanes))


def store(buffer: Buffer, value: Expr, index: Sequence[Expr], lanes: int = 1) -> Stmt:
    """Write one element, or ``lanes`` neighbours along the last dimension."""
    return tirx.BufferStore(buffer, value, _lanes(index, lanes))


def splat(value: Expr, lanes: int) -> Expr:
    """The same number in every lane."""
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def zeros(lanes: int, dtype: str = "float32") -> Expr:
    """A vector of zeros."""
    return splat(tirx.const(0, dtype), lanes)


def int32(value: Expr) -> Expr:
    """A Python number as an expression."""
    return tirx.const(value, "int32") if isinstance(value, int) else value


def _lanes(index: Sequence[Expr], lanes: int) -> list[Expr]:
    index = [int32(i) for i in index]
    if lanes > 1:
        index[-1] = tirx.Ramp(index[-1], tirx.const(1, "int32"), lanes)
    return index
