"""Where what a thread loads goes: into its registers, or into shared memory while the thread goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.gpu.launch import copy, copy_ahead, local
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, store


@dataclass(frozen=True)
class Sink:
    """``lanes`` neighbours of a buffer from a place on; ``is_ahead`` of shared memory."""

    buffer: Buffer
    at: Sequence[Expr]
    lanes: int
    is_ahead: bool = False

    def copy(self, source: Buffer, place: Sequence[Expr]) -> Stmt:
        """All of them, from a place of global memory on."""
        return (copy_ahead if self.is_ahead else copy)(self.buffer, self.at, source, place, self.lanes)

    def copy_where(self, conditions: Sequence[Expr], source: Buffer, place: Sequence[Expr], outside: Expr) -> Stmt:
        """All of them where all conditions hold, else what stands ``outside`` for each."""
        read = self.copy(source, place)
        return tirx.IfThenElse(tirx.all(*conditions), read, self.fill(outside)) if conditions else read

    def fill(self, value: Expr) -> Stmt:
        """The same value for each."""
        return self.store([value] * self.lanes)

    def store(self, values: Sequence[Expr]) -> Stmt:
        """A value for each."""
        if not self.is_ahead:
            places = ([*self.at[:-1], self.at[-1] + lane] for lane in range(self.lanes))
            return block(*(store(self.buffer, value, at) for value, at in zip(values, places, strict=True)))
        made = local([self.lanes], "values", str(self.buffer.dtype))
        stores = (store(made, value, [lane]) for lane, value in enumerate(values))
        return allocate([made], *stores, copy(self.buffer, self.at, made, [0], self.lanes))
