"""Windows that slide over a padded image, in the loops of pooling and depthwise convolution: which of their taps lie
inside the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.cpu.kernels.register_tile import Run
from lvc.backends.tvm.nest import Expr, Stmt, block, loop


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image of ``size`` elements; the first begins ``before`` elements ahead of it."""

    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    before: int

    def position(self, output: Expr, tap: Expr) -> Expr:
        """Where a tap of the window of an output lies; it may be outside the image."""
        return output * self.stride + tap * self.dilation - self.before

    def is_inside(self, output: int, tap: int) -> bool:
        """Whether a tap lies in the image."""
        return bool(0 <= self.position(output, tap) < self.size)

    @cached_property
    def clear(self) -> tuple[int, int]:
        """The first output whose window lies inside the image, and the first after it whose window does not."""
        first = min(-(-self.before // self.stride), self.outputs)
        room = self.size + self.before - (self.kernel - 1) * self.dilation - 1
        return first, max(min(room // self.stride + 1, self.outputs) if room >= 0 else 0, first)

    def taps(self, output: Expr, count: int = 1) -> tuple[Expr, Expr]:
        """The first tap that any of ``count`` outputs from ``output`` on has inside the image, and the number of taps
        up to the last one."""
        if self.clear == (0, self.outputs):
            return 0, self.kernel
        begin = output * self.stride - self.before
        last_begin = begin + (count - 1) * self.stride
        first = tirx.max((self.dilation - 1 - last_begin) // self.dilation, 0)
        last = tirx.min((self.size - 1 - begin) // self.dilation, self.kernel - 1)
        return first, tirx.max(last - first + 1, 0)

    def reach(self, outputs: int) -> int:
        """The elements that so many neighbouring windows cover together."""
        return (outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1


@dataclass(frozen=True)
class Tile:
    """Neighbouring outputs of a row, from ``first`` on; ``is_clear`` if none of their windows leaves the image."""

    first: Expr
    size: int
    is_clear: bool


def by_column(axis: Axis, outputs: int, taps: int) -> list[tuple[int, int]]:
    """Pairs of an output and a tap in the order of the elements that they read, so that each is loaded once."""
    pairs = [(output, tap) for output in range(outputs) for tap in range(taps)]
    return sorted(pairs, key=lambda pair: axis.position(*pair))


def pairs_inside(axis: Axis, tile: Tile) -> list[tuple[int, int]]:
    """The pairs of an output and a tap of a tile that lie inside the image; its first output is a number."""
    pairs = by_column(axis, tile.size, axis.kernel)
    return [(output, tap) for output, tap in pairs if axis.is_inside(tile.first + output, tap)]


def edge_tiles(axis: Axis, runs: tuple[Run, ...]) -> Iterator[Tile]:
    """The tiles that are not clear."""
    for run in runs:
        for first in range(run.start, run.start + run.count * run.size, run.size):
            if not _is_clear(axis, first, run.size):
                yield Tile(first, run.size, False)


def each_tile(axis: Axis, runs: tuple[Run, ...], body: Callable[[Tile], Stmt], has_numbers: bool = True) -> Stmt:
    """Run ``body`` for each tile of an axis: for those that are clear within loops, for each of the others apart if
    their first outputs must be numbers, else within loops as well."""
    statements: list[Stmt] = []
    for run in runs:
        inner = [i for i in range(run.count) if _is_clear(axis, run.start + i * run.size, run.size)]
        first, end = (inner[0], inner[-1] + 1) if inner else (run.count, run.count)
        for start, stop, is_clear in ((0, first, False), (first, end, True), (end, run.count, False)):
            if is_clear or not has_numbers:
                statements += _tiles(run, start, stop, body, is_clear)
            else:
                statements += [body(Tile(run.start + i * run.size, run.size, False)) for i in range(start, stop)]
    return block(*statements)


def _is_clear(axis: Axis, first: int, count: int) -> bool:
    return axis.clear[0] <= first and first + count <= axis.clear[1]


def _tiles(run: Run, start: int, stop: int, body: Callable[[Tile], Stmt], is_clear: bool) -> list[Stmt]:
    def tile(i: Expr) -> Stmt:
        return body(Tile(i * run.size + run.start, run.size, is_clear))

    return [loop(stop - start, tile, name="tile", start=start)] if stop > start else []
