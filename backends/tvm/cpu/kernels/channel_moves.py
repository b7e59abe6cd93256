"""Kernels that do nothing but take channels from elsewhere: concatenation, slices and shuffles of blocked tensors.

A vector of the result is so many whole vectors of the operands, its lanes taken from theirs. By single elements a
channel shuffle takes as long as the convolutions around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import TensorLoad

from lvc.backends.tvm.cpu.kernels.parts import move_parts
from lvc.backends.tvm.cpu.kernels.register_tile import cut, each_tile
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, int32, load, loop, store, tasks, zeros

MOST_CHANNELS = 1024  # each is looked at when the kernel is written, and each block of them has code of its own
MOST_SOURCES = 8  # vectors that one vector of the result is made of

Lane = tuple[int, int, int] | None  # operand, block and lane that a lane comes from; None where it is zero


@dataclass(frozen=True)
class ChannelMove:
    """The lanes of each block of ``output`` ``[N, blocks, H, W, lanes]``, taken from ``operands`` with the same N, H
    and W."""

    output: Buffer
    operands: tuple[Buffer, ...]
    lanes: tuple[tuple[Lane, ...], ...]

    def build(self) -> Stmt:
        """The whole nest."""
        images, blocks, rows, columns, lanes = map(int, self.output.shape)
        parts = move_parts(rows, images * blocks * rows * columns * lanes)

        def task(image: Expr, part: Expr) -> Stmt:
            def of_block(number: int) -> Stmt:
                return each_tile(cut(rows, 1), lambda row, _: self._row(number, image, row), part, parts)

            return block(*map(of_block, range(blocks)))

        return tasks((images, parts), task)

    def _row(self, number: int, image: Expr, row: Expr) -> Stmt:
        """A row of a block."""
        columns, lanes = int(self.output.shape[3]), self.lanes[number]
        dtype = str(self.output.dtype)
        sources = list(dict.fromkeys(lane[:2] for lane in lanes if lane))
        places = [(len(sources), 0) if lane is None else (sources.index(lane[:2]), lane[2]) for lane in lanes]

        def vector(column: Expr) -> Expr:
            vectors = [load(self.operands[i], [image, b, row, column, 0], len(lanes)) for i, b in sources]
            if None in lanes:
                vectors.append(zeros(len(lanes), dtype))
            if places == [(0, lane) for lane in range(len(lanes))]:
                return vectors[0]
            return tirx.Shuffle(vectors, [int32(source * len(lanes) + lane) for source, lane in places])

        def pixel(column: Expr) -> Stmt:
            return store(self.output, vector(column), [image, number, row, column, 0], len(lanes))

        return loop(columns, pixel, name="x")


def channel_move(sch: Any, stage: Any, vector: Vector) -> ChannelMove | None:
    """What a kernel's only stage takes from where; None if it does anything else."""
    body, axes = sch.get(stage).body, sch.get(stage).iter_vars
    shape = [int(extent) for extent in body.buffer.shape]
    if len(shape) != 5 or shape[4] != vector.lanes or shape[1] * shape[4] > MOST_CHANNELS:
        return None
    if any(int(axis.iter_type) for axis in axes) or len(axes) != len(shape):
        return None
    finder = _Finder([axis.var for axis in axes], shape, body.value)
    lanes = []
    for number in range(shape[1]):
        found = [finder.lane(number, lane) for lane in range(shape[4])]
        kept = [lane for lane in found if not isinstance(lane, _Other)]
        if len(kept) < len(found) or len({lane[:2] for lane in kept if lane}) > MOST_SOURCES:
            return None
        lanes.append(tuple(kept))
    return ChannelMove(body.buffer, tuple(finder.operands), tuple(lanes))


class _Other:
    """What is no element of an operand at the same place in the plane."""


class _Finder:
    """Finds where an element of the result comes from."""

    def __init__(self, axes: Sequence[Any], shape: Sequence[int], value: Expr) -> None:
        self.operands: list[Buffer] = []
        self._axes, self._value, self._analyzer = axes, value, sym.Analyzer()
        for axis, extent in zip(axes, shape, strict=True):
            self._analyzer.bind(axis, ir.Range(0, extent))

    def lane(self, number: int, lane: int) -> Lane | _Other:
        """The source of a lane of a block."""
        known = {self._axes[1]: int32(number), self._axes[4]: int32(lane)}
        value = tvm_ffi.structural_mutate(self._value, [(tirx.Var, lambda node, _: known.get(node, node))])
        value = self._analyzer.simplify(value)
        if isinstance(value, tirx.FloatImm | tirx.IntImm) and value.value == 0:
            return None
        if not isinstance(value, TensorLoad) or len(value.indices) != len(self._axes):
            return _Other()
        image, source, row, column, taken = value.indices
        same = [(image, self._axes[0]), (row, self._axes[2]), (column, self._axes[3])]
        if not all(self._analyzer.can_prove_equal(*pair) for pair in same):
            return _Other()
        if not isinstance(source, tirx.IntImm) or not isinstance(taken, tirx.IntImm):
            return _Other()
        return self._operand(value.source), int(source), int(taken)

    def _operand(self, buffer: Buffer) -> int:
        for number, known in enumerate(self.operands):
            if known.same_as(buffer):
                return number
        self.operands.append(buffer)
        return len(self.operands) - 1
