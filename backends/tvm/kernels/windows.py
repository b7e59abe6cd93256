"""Windows that slide over a padded image, in the loops of pooling and depthwise convolution: which of their taps lie
inside the image. Rows are found at run time, columns while the nest is written, so that no padding is ever stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from lvc.backends.tvm.kernels.nest import Expr, Stmt, block, loop
from lvc.backends.tvm.kernels.register_tile import Run


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

    def taps(self, output: Expr) -> tuple[Expr, Expr]:
        """The first tap of an output's window inside the image, and how many there are."""
        if self.clear == (0, self.outputs):
            return 0, self.kernel
        begin = output * self.stride - self.before
        first = tirx.max((self.dilation - 1 - begin) // self.dilation, 0)
        last = tirx.min((self.size - 1 - begin) // self.dilation, self.kernel - 1)
        return first, tirx.max(last - first + 1, 0)


def each_column_tile(axis: Axis, runs: tuple[Run, ...], body: Callable[[Expr, int, int | None], Stmt]) -> Stmt:
    """Run ``body(first output, outputs, known)`` for each tile of an axis.

    ``known`` is the first output as a number for the tiles at the edges, whose windows reach out of the image; None
    for those within a loop, whose windows do not.
    """
    statements: list[Stmt] = []
    for run in runs:
        inner = [i for i in range(run.count) if _is_clear(axis, run.start + i * run.size, run.size)]
        first, count = (inner[0], len(inner)) if inner else (run.count, 0)
        edges = [run.start + i * run.size for i in range(run.count) if i < first or i >= first + count]
        statements += [body(output, run.size, output) for output in edges]
        if count:
            statements.append(_inner(run, first, count, body))
    return block(*statements)


def _is_clear(axis: Axis, first: int, count: int) -> bool:
    return axis.clear[0] <= first and first + count <= axis.clear[1]


def _inner(run: Run, first: int, count: int, body: Callable[[Expr, int, int | None], Stmt]) -> Stmt:
    return loop(count, lambda i: body(i * run.size + run.start, run.size, None), name="tile", start=first)
