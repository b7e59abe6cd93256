"""Peaks of resized heat maps, without the resized maps: a few columns at a time, of which only the largest is kept."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from lvc.backends.tvm.comparisons import is_number, untruth
from lvc.backends.tvm.layout import PLAIN
from lvc.backends.tvm.nest import Buffer, Expr, Stmt, allocate, block, int32, load, loop, scratch, splat, store, tasks
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, scalar_of
from lvc.compiler.ir.operators import heatmaps

_VECTORS = 4
"""Vectors of columns for each of which the weights of a row are used once they are there."""

_TAPS = 4


@lowers(heatmaps.peaks)
def peaks(call: Call) -> Array:
    """One map after the other, shared out among threads."""
    count, kinds, height, width = call["maps"].shape
    maps = reshape_array(call.scope, call["maps"], (count * kinds, height, width))
    inputs = [call.scope.tensor(maps.shape, maps.read), call.scope.tensor((count, 2), call["sizes"].read)]
    call.scope.has_lookups = True

    def body(given: Sequence[Buffer], made: Sequence[Buffer]) -> Stmt:
        def task(number: Expr) -> Stmt:
            size = [load(given[1], [tirx.floordiv(number, kinds), axis]) for axis in range(2)]
            return _Search(call.dtype, call.scope.lanes, (height, width)).run(number, given[0], size, made[0])

        return tasks((count * kinds,), task)

    tensor = te.extern((count * kinds, 3), inputs, body, f"{call.node.name}_peaks", call.dtype)
    return reshape_array(call.scope, call.scope.leaf(tensor, (count * kinds, 3), PLAIN), call.shape)


class _Search:
    """The search of one map.

    Columns of the map are interpolated along its rows, for a block of columns of the result; then row after row of the
    result is made of four of them, and compared with the largest so far in its column. Of the columns' largest elements
    the largest is taken, of equal ones that which comes first, row by row.
    """

    def __init__(self, dtype: str, lanes: int, extent: tuple[int, int]) -> None:
        self.dtype, self.lanes, self.extent, self.columns = dtype, lanes, extent, _VECTORS * lanes
        self.sides = scratch((2,), "sides", "int32")
        self.weights, self.pixels = scratch((_TAPS,), "weights", dtype), scratch((_TAPS,), "pixels", "int32")
        self.across = scratch((extent[0], self.columns), "across", dtype)
        self.best, self.rows = scratch((self.columns,), "best", dtype), scratch((self.columns,), "rows", "int32")
        self.top, self.place = scratch((1,), "top", dtype), scratch((2,), "place", "int32")

    def run(self, number: Expr, maps: Buffer, size: Sequence[Expr], output: Buffer) -> Stmt:
        """Write row, column and value of a map's peak to ``output[number]``."""
        height, width = (load(self.sides, [axis]) for axis in range(2))
        results = [*(tirx.Cast(self.dtype, load(self.place, [axis])) for axis in range(2)), load(self.top, [0])]
        parts = tirx.floordiv(width + (self.columns - 1), self.columns)
        found = block(
            loop(parts, lambda part: self._part(number, maps, part * self.columns), name="part"),
            *(store(output, result, [number, which]) for which, result in enumerate(results)),
        )
        nothing = loop(3, lambda which: store(output, self._number(float("nan")), [number, which]))
        return allocate(
            [self.sides, self.weights, self.pixels, self.across, self.best, self.rows, self.top, self.place],
            *(store(self.sides, _bounded(side), [axis]) for axis, side in enumerate(size)),
            store(self.top, self._number(-float("inf")), [0]),
            *(store(self.place, int32(0), [axis]) for axis in range(2)),
            tirx.IfThenElse(tirx.all(height > 0, width > 0), found, nothing),
        )

    def _part(self, number: Expr, maps: Buffer, base: Expr) -> Stmt:
        """A block of columns, from ``base`` on; those behind the last are the last one again, and are not looked at."""
        height, width = (load(self.sides, [axis]) for axis in range(2))

        def clear(x: Expr) -> Stmt:
            return block(store(self.best, self._number(-float("inf")), [x]), store(self.rows, int32(0), [x]))

        def interpolate(x: Expr) -> Stmt:
            def element(y: Expr) -> Stmt:
                taken = [load(maps, [number, y, load(self.pixels, [tap])]) for tap in range(_TAPS)]
                return store(self.across, self._weighted(taken), [y, x])

            return block(self._aim(tirx.min(base + x, width - 1), 1), loop(self.extent[0], element, name="y"))

        def row(y: Expr) -> Stmt:
            return block(self._aim(y, 0), loop(_VECTORS, lambda vector: self._compare(y, vector), name="vector"))

        return block(
            loop(self.columns, clear, name="x"),
            loop(self.columns, interpolate, name="x"),
            loop(height, row, name="y"),
            loop(tirx.min(width - base, self.columns), lambda x: self._collect(base, x), name="x"),
        )

    def _aim(self, at: Expr, axis: int) -> Stmt:
        """The four pixels around a place of the result along an axis, and their weights: PyTorch's arithmetic."""
        first, rest = scratch((1,), "first", self.dtype), scratch((1,), "rest", self.dtype)
        n, length = self._number, self.extent[axis]
        scale = n(length) / tirx.Cast(self.dtype, load(self.sides, [axis]))
        exact = scale * (tirx.Cast(self.dtype, at) + n(0.5)) - n(0.5)
        near, far = load(rest, [0]), n(1) - load(rest, [0])
        weights = self._outer(near + n(1)), self._inner(near), self._inner(far), self._outer(far + n(1))
        pixels = [tirx.Cast("int32", load(first, [0])) + (tap - 1) for tap in range(_TAPS)]
        return allocate(
            [first, rest],
            store(first, tirx.min(tirx.floor(exact), n(length - 1)), [0]),
            store(rest, tirx.max(tirx.min(exact - load(first, [0]), n(1)), n(0)), [0]),
            *(store(self.weights, weight, [tap]) for tap, weight in enumerate(weights)),
            *(store(self.pixels, tirx.max(tirx.min(pixel, length - 1), 0), [tap]) for tap, pixel in enumerate(pixels)),
        )

    def _compare(self, y: Expr, vector: Expr) -> Stmt:
        lanes, at = self.lanes, [vector * self.lanes]
        value = scratch((lanes,), "value", self.dtype)
        taken = [load(self.across, [load(self.pixels, [tap]), *at], lanes) for tap in range(_TAPS)]
        found, kept = load(value, [0], lanes), load(self.best, at, lanes)
        return allocate(
            [value],
            store(value, self._weighted(taken, lanes), [0], lanes),
            store(self.rows, _if_greater(found, kept, splat(y, lanes), load(self.rows, at, lanes)), at, lanes),
            store(self.best, _if_greater(found, kept, found, kept), at, lanes),
        )

    def _collect(self, base: Expr, x: Expr) -> Stmt:
        found, kept, row = load(self.best, [x]), load(self.top, [0]), load(self.rows, [x])
        is_before = tirx.all(_is_same(found, kept), row < load(self.place, [0]))
        is_taken = tirx.EQ(_if_greater(found, kept, int32(1), tirx.Cast("int32", is_before)), 1)
        taken = block(store(self.top, found, [0]), store(self.place, row, [0]), store(self.place, base + x, [1]))
        return tirx.IfThenElse(is_taken, taken, None)

    def _weighted(self, taken: Sequence[Expr], lanes: int = 1) -> Expr:
        terms = [value * splat(load(self.weights, [tap]), lanes) for tap, value in enumerate(taken)]
        return ((terms[0] + terms[1]) + terms[2]) + terms[3]

    def _inner(self, x: Expr) -> Expr:
        """The weight of a pixel that is nearer than one."""
        n = self._number
        return (x * n(heatmaps.A + 2) - n(heatmaps.A + 3)) * x * x + n(1)

    def _outer(self, x: Expr) -> Expr:
        """The weight of a pixel that is between one and two away."""
        a, n = heatmaps.A, self._number
        return ((x * n(a) - n(5 * a)) * x + n(8 * a)) * x - n(4 * a)

    def _number(self, value: float) -> Expr:
        return scalar_of(value, self.dtype)


def _bounded(side: Expr) -> Expr:
    """A side of the result; none where it is out of bounds."""
    outside = tirx.any(side < 1, side > heatmaps.LONGEST)
    return tirx.Select(outside, int32(0), tirx.Cast("int32", side))


def _if_greater(found: Expr, kept: Expr, yes: Expr, no: Expr) -> Expr:
    """One of two values by whether an element, number or vector, is greater than another; NaN is the greatest."""
    return tirx.Select(found <= kept, no, tirx.Select(is_number(kept), yes, no))


def _is_same(found: Expr, kept: Expr) -> Expr:
    """Whether two elements are equal, or both are no numbers."""
    return tirx.any(tirx.EQ(found, kept), tirx.And(untruth(is_number(found)), untruth(is_number(kept))))
