"""Copies of blocked values to the plain layout: squares of pixels and channels, transposed in registers.

Element by element, the plane of a channel is read from as many lines of memory as it has pixels, and all of them again
for the next channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm import ir, sym, tirx
from tvm.ir import TensorLoad

from lvc.backends.tvm.cpu.kernels.parts import move_parts
from lvc.backends.tvm.cpu.kernels.point_transform import Registers
from lvc.backends.tvm.cpu.kernels.register_tile import cut, each_tile
from lvc.backends.tvm.cpu.kernels.transposition import transposed
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    int32,
    load,
    loop,
    store,
    tasks,
)


@dataclass(frozen=True)
class Unblocking:
    """``source`` ``[N, blocks, H, W, lanes]`` as ``output`` ``[N, C, H, W]`` or ``[N, C, H*W]``."""

    source: Buffer
    output: Buffer

    def build(self) -> Stmt:
        """The whole nest."""
        images, blocks, rows, columns, lanes = map(int, self.source.shape)
        channels, pixels = int(self.output.shape[1]), rows * columns
        squares, rest = divmod(pixels, lanes)
        parts = move_parts(squares, images * channels * pixels)

        def task(image: Expr, part: Expr) -> Stmt:
            def of_block(number: int) -> Stmt:
                filled = min(lanes, channels - number * lanes)
                runs = cut(squares * lanes, lanes)
                return each_tile(runs, lambda pixel, _: self._square(image, number, pixel, filled), part, parts)

            return block(*map(of_block, range(blocks)))

        def last(image: Expr) -> Stmt:
            def element(c: Expr, i: Expr) -> Stmt:
                pixel = squares * lanes + i
                value = load(self.source, [image, tirx.floordiv(c, lanes), *self._at(pixel), tirx.floormod(c, lanes)])
                return self._store(value, image, c, pixel, 1)

            return loop(channels, lambda c: loop(rest, lambda i: element(int32(c), i), name="pixel"), name="channel")

        whole = [tasks((images, parts), task)] if squares else []
        return block(*whole, *([loop(images, last, name="image")] if rest else []))

    def _square(self, image: Expr, number: int, pixel: Expr, filled: int) -> Stmt:
        """As many pixels as lanes, of so many channels of a block."""
        lanes = int(self.source.shape[4])
        registers = Registers(lanes, str(self.source.dtype))
        rows = [load(self.source, [image, number, *self._at(pixel + i), 0], lanes) for i in range(lanes)]
        values = transposed(registers, rows)
        write = [self._store(values[c], image, number * lanes + c, pixel, lanes) for c in range(filled)]
        return allocate(registers.buffers, *registers.statements, *write)

    def _at(self, pixel: Expr) -> tuple[Expr, Expr]:
        """The row and column of a pixel."""
        columns = int(self.source.shape[3])
        return tirx.floordiv(pixel, columns), tirx.floormod(pixel, columns)

    def _store(self, value: Expr, image: Expr, channel: Expr, pixel: Expr, lanes: int) -> Stmt:
        place = [pixel] if len(self.output.shape) == 3 else list(self._at(pixel))
        return store(self.output, value, [image, channel, *place], lanes)


def unblocking(sch: Any, stage: Any, vector: Vector) -> Unblocking | None:
    """What a kernel's only stage copies, if that is a blocked value that becomes plain; None of any other."""
    body, axes = sch.get(stage).body, sch.get(stage).iter_vars
    value, shape = body.value, [int(extent) for extent in body.buffer.shape]
    if len(shape) not in (3, 4) or len(axes) != len(shape) or any(int(axis.iter_type) for axis in axes):
        return None
    if not isinstance(value, TensorLoad) or len(value.indices) != 5:
        return None
    *_, columns, lanes = (int(extent) for extent in value.source.shape)
    if lanes != vector.lanes or math.prod(value.source.shape[2:4]) != math.prod(shape[2:]):
        return None
    analyzer = sym.Analyzer()
    for axis, extent in zip(axes, shape, strict=True):
        analyzer.bind(axis.var, ir.Range(0, extent))
    image, channel, *place = (axis.var for axis in axes)
    at = place if len(place) == 2 else [place[0] // columns, place[0] % columns]
    expected = [image, channel // lanes, *at, channel % lanes]
    if not all(analyzer.can_prove_equal(*pair) for pair in zip(value.indices, expected, strict=True)):
        return None
    return Unblocking(value.source, body.buffer)
