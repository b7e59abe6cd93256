"""What the threads of a block load of the windows of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from lvc.backends.tvm.gpu.kernels.sink import Sink
from lvc.backends.tvm.gpu.kernels.windows import Windows
from lvc.backends.tvm.gpu.launch import split
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, block, load, store


@dataclass(frozen=True)
class Gather:
    """Of pixels from ``first`` on, ``rows`` for a block, channels of a ``group`` that has so many ``quads``, blocks of
    four. ``corners`` are the image, row and column where the windows begin of the rows that a thread loads."""

    windows: Windows
    data: Buffer
    corners: Buffer
    first: Expr
    rows: int
    group: Expr
    quads: int

    def prepare(self, turn: int, row: Expr) -> Stmt:
        """The image, and the row and column of the first tap, of a pixel; beyond the last one a row that is outside."""
        w = self.windows
        pixel = self.first + row
        image, y, x = split(pixel, (w.batch, w.out_height, w.out_width))
        top, left = w.corner(y, x)
        if w.pixels % self.rows:
            top = tirx.Select(pixel < w.pixels, top, tirx.const(-(1 << 20), "int32"))
        values = image, top, left
        return block(*(store(self.corners, value, [turn, place]) for place, value in enumerate(values)))

    def tap(self, turn: int, tap: Expr) -> tuple[Expr, Expr, Expr]:
        """The image, row and column of a tap."""
        image, top, left = (load(self.corners, [turn, place]) for place in range(3))
        down, across = self.windows.offset(tap)
        return image, top + down, left + across

    def fetch_quad(self, turn: int, quad: Expr, most: int | None, into: Sink, outside: Expr) -> Stmt:
        """Four channels of one tap, of data in blocks: taps outside, channels inside, and nothing from ``most`` on."""
        tap, channel = tirx.floordiv(quad, self.quads), tirx.floormod(quad, self.quads)
        image, y, x = self.tap(turn, tap)
        inside = self.windows.is_inside(y, x)
        if most is not None:
            inside = tirx.all(inside, quad < most)
        index = [image, self.group * self.quads + channel, *self.windows.source(y, x), 0]
        return into.copy_where([inside], self.data, index, outside)
