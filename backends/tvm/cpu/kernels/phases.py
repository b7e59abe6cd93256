"""Phases of a convolution: the outputs that take the same taps, of which a transposed one has as many as its stride has
places. Those that differ only in where they begin share their code, which would else grow with the stride's square."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from tvm import tirx

from lvc.backends.tvm.nest import Expr, Stmt, block, loop

WORTH_SKIPPING = 0.04  # share of the taps that lie outside the image
MOST_WRITTEN = 4  # phases that stand in the code one by one


@dataclass(frozen=True)
class Sweep:
    """One axis of a convolution: output ``i`` and tap ``t`` meet at element ``i * stride + t * dilation + begin`` of
    the image; they are output ``out[0] + i * out[1]`` and tap ``tap[0] + t * tap[1]`` of the whole. ``begin``,
    ``out[0]`` and ``tap[0]`` are expressions where sweeps share their code."""

    size: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    begin: Expr
    out: tuple[Expr, int] = (0, 1)
    tap: tuple[Expr, int] = (0, 1)

    def position(self, output: Expr, tap: Expr) -> Expr:
        """The element of the image where an output and a tap meet."""
        return output * self.stride + tap * self.dilation + self.begin

    def taps_inside(self, output: Expr, count: int = 1) -> tuple[Expr, Expr]:
        """The first tap that any of ``count`` outputs from ``output`` on has inside the image, and how many follow; all
        taps if too few are outside to be worth the search, or if sweeps share their code."""
        if not isinstance(self.begin, int) or self._outside(count) < WORTH_SKIPPING:
            return 0, self.taps
        room = (count - 1) * self.stride
        ahead, behind = output * self.stride + self.begin + room, output * self.stride + self.begin - self.size + 1
        if self.dilation < 0:
            ahead, behind = -behind, -ahead
        step = abs(self.dilation)
        first = tirx.max(tirx.floordiv(step - 1 - ahead, step), 0)
        last = tirx.min(tirx.floordiv(-behind, step), self.taps - 1)
        return first, tirx.max(last - first + 1, 0)

    def _outside(self, count: int) -> float:
        """The share of taps that are outside the image for all of ``count`` outputs."""
        outside = 0
        for output in range(0, self.outputs, count):
            begins = [self.position(output, tap) for tap in range(self.taps)]
            outside += sum(begin + (count - 1) * self.stride < 0 or begin >= self.size for begin in begins)
        return outside * count / (self.outputs * max(self.taps, 1))

    @cached_property
    def is_padded(self) -> bool:
        """Whether a tap of an output is outside the image."""
        first, last = self.reach
        return self.taps > 0 and (first < 0 or last + (self.outputs - 1) * self.stride >= self.size)

    def inside(self) -> list[Sweep]:
        """The sweep, with all its taps, cut wherever other taps are inside the image, each piece with those alone."""

        def taps(output: int) -> list[int]:
            return [tap for tap in range(self.taps) if 0 <= self.position(output, tap) < self.size]

        pieces = []
        for found, group in groupby(range(self.outputs), taps):
            first, *rest = group
            tap = found[0] if found else 0
            piece = replace(self, outputs=1 + len(rest), taps=len(found), begin=self.position(first, tap))
            pieces.append(replace(piece, out=(first, 1), tap=(tap, 1)))
        return pieces

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The first and the last element that output 0 depends on."""
        ends = (self.begin, self.begin + max(self.taps - 1, 0) * self.dilation)
        return min(ends), max(ends)


Phase = tuple[Sweep, Sweep]  # rows and columns


def each_phase(phases: Sequence[Phase], body: Callable[[Phase], Stmt]) -> Stmt:
    """Run ``body`` for each phase: every one of the rows with every one of the columns."""
    if len(phases) <= MOST_WRITTEN:
        return block(*map(body, phases))
    rows, columns = (runs(list(dict.fromkeys(phase[axis] for phase in phases))) for axis in (0, 1))

    def line(row: Sweep) -> Stmt:
        return block(*(each_of(run, lambda column: body((row, column))) for run in columns))

    return block(*(each_of(run, line) for run in rows))


def runs(sweeps: Sequence[Sweep]) -> list[list[Sweep]]:
    """Cut sweeps into runs of neighbours that differ in where they begin alone, each by as much from the one before."""
    found: list[list[Sweep]] = []
    for sweep in sweeps:
        if found and _goes_on(found[-1], sweep):
            found[-1].append(sweep)
        else:
            found.append([sweep])
    return found


def _goes_on(run: list[Sweep], sweep: Sweep) -> bool:
    if _moved(sweep, _places(run[0])) != run[0]:
        return False
    return len(run) == 1 or _steps(run[-1], sweep) == _steps(run[0], run[1])


def _places(sweep: Sweep) -> tuple[Expr, Expr, Expr]:
    return sweep.begin, sweep.out[0], sweep.tap[0]


def _steps(first: Sweep, second: Sweep) -> list[int]:
    return [after - before for before, after in zip(_places(first), _places(second), strict=True)]


def _moved(sweep: Sweep, places: Sequence[Expr]) -> Sweep:
    begin, out, tap = places
    return replace(sweep, begin=begin, out=(out, sweep.out[1]), tap=(tap, sweep.tap[1]))


def each_of(run: Sequence[Sweep], body: Callable[[Sweep], Stmt]) -> Stmt:
    """Run ``body`` for each sweep of a run."""
    if len(run) == 1:
        return body(run[0])
    steps = _steps(run[0], run[1])

    def sweep(i: Expr) -> Stmt:
        return body(_moved(run[0], [place + i * step for place, step in zip(_places(run[0]), steps, strict=True)]))

    return loop(len(run), sweep, name="phase")
