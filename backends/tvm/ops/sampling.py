"""Reading an image at places that are data: PyTorch's ``grid_sample``, in general form."""

from __future__ import annotations

import torch
from tvm import tirx

from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, let, scalar_of

aten = torch.ops.aten

_BILINEAR, _NEAREST, _BICUBIC = range(3)  # interpolation_mode
_ZEROS, _BORDER, _REFLECTION = range(3)  # padding_mode
_TAPS = {_BILINEAR: (0, 1), _NEAREST: (0,), _BICUBIC: (-1, 0, 1, 2)}
"""The pixels of an axis that are read, from the one at or before the exact place."""


@lowers(aten.grid_sampler_2d.default)
def grid_sampler(call: Call) -> Array:
    """Weighted sums of the pixels around places between -1 and 1; the last dimension of places has x before y."""
    image: Array = call["input"]
    rows, columns = _Axis(call, 0), _Axis(call, 1)

    def pixel(index: Index, row: int, column: int) -> Expr:
        n, c, y, x = index
        v, u = rows.position(n, y, x, row), columns.position(n, y, x, column)
        value = call.scope.lookup(
            tirx.max(v, 0),
            image.shape[2],
            lambda i: call.scope.lookup(tirx.max(u, 0), image.shape[3], lambda j: image.read([n, c, i, j])),
        )
        return tirx.Select(tirx.all(v >= 0, u >= 0), value, scalar_of(0, call.dtype))

    def line(index: Index, row: int) -> Expr:
        n, _, y, x = index
        return _sum([pixel(index, row, column) * columns.weight(n, y, x, column) for column in range(columns.count)])

    def read(index: Index) -> Expr:
        n, _, y, x = index
        if rows.count == 1:
            return pixel(index, 0, 0)
        return _sum([line(index, row) * rows.weight(n, y, x, row) for row in range(rows.count)])

    return call.result(read)


def _sum(terms: list[Expr]) -> Expr:
    return sum(terms[1:], terms[0])


class _Axis:
    """Which pixels of an image's rows (axis 0) or columns (axis 1) each place reads, and by which weights.

    Both are computed once for all channels. Arithmetic is that of PyTorch's kernels, so that ties fall alike.
    """

    def __init__(self, call: Call, axis: int) -> None:
        self.call, self.size = call, int(call["input"].shape[2 + axis])
        self.mode, self.padding = call["interpolation_mode"], call["padding_mode"]
        self.taps = _TAPS[self.mode]
        self.count = len(self.taps)
        self.axis = axis
        n, _, height, width = call.shape
        shape = (n, height, width, self.count)
        self._positions = call.scope.stage(shape, self._position)
        self._weights = call.scope.stage(shape, self._weight) if self.count > 1 else None

    def position(self, n: Expr, y: Expr, x: Expr, tap: int) -> Expr:
        """The number of a pixel; -1 where zero stands for one outside."""
        return self._positions.read((n, y, x, tap))

    def weight(self, n: Expr, y: Expr, x: Expr, tap: int) -> Expr:
        assert self._weights is not None
        return self._weights.read((n, y, x, tap))

    def _position(self, index: Index) -> Expr:
        def inside(at: Expr) -> Expr:
            is_inside = tirx.all(at >= self._number(0), at <= self._number(self.size - 1))
            return tirx.Select(is_inside, tirx.Cast("int32", self._clipped(at)), -1)

        exact = self._exact(index)
        first = tirx.nearbyint(exact) if self.mode == _NEAREST else tirx.floor(exact)
        at = first + tirx.Cast(self.call.dtype, index[3] + self.taps[0])
        return let(self._padded(at) if self.mode == _BICUBIC else at, inside)

    def _weight(self, index: Index) -> Expr:
        def by_distance(exact: Expr) -> Expr:
            rest = exact - tirx.floor(exact)
            if self.mode == _BILINEAR:
                return tirx.Select(index[3] == 0, self._number(1) - rest, rest)
            return let(tirx.abs(rest - tirx.Cast(self.call.dtype, index[3] + self.taps[0])), self._cubic)

        return let(self._exact(index), by_distance)

    def _exact(self, index: Index) -> Expr:
        """The place in pixels. Bicubic interpolation pads the pixels around it instead."""
        place = self.call["grid"].read((*index[:3], 1 - self.axis)) + self._number(1)
        if self.call["align_corners"]:
            exact = place * self._number((self.size - 1) / 2)
        else:
            exact = place * self._number(self.size / 2) - self._number(0.5)
        return exact if self.mode == _BICUBIC else self._padded(exact)

    def _padded(self, at: Expr) -> Expr:
        if self.padding == _ZEROS:
            return at
        return let(at if self.padding == _BORDER else self._reflected(at), self._clipped)

    def _clipped(self, at: Expr) -> Expr:
        """The nearest place inside; the first for what is no number."""
        positive = tirx.Select(at > self._number(0), at, self._number(0))
        return tirx.min(positive, self._number(self.size - 1))

    def _reflected(self, at: Expr) -> Expr:
        """Mirrored at the outermost pixels, or at their outer edges, as often as it takes."""
        low, span = (0.0, self.size - 1) if self.call["align_corners"] else (-0.5, self.size)
        if not span:
            return self._number(0)
        period = self._number(2 * span)

        def fold(away: Expr) -> Expr:
            return let(
                away - tirx.floor(away / period) * period,
                lambda rest: tirx.min(rest, period - rest) + self._number(low),
            )

        return let(tirx.abs(at - self._number(low)), fold)

    def _cubic(self, distance: Expr) -> Expr:
        """The cubic convolution kernel with a = -0.75."""
        a, n = -0.75, self._number
        near = ((n(a + 2) * distance - n(a + 3)) * distance) * distance + n(1)
        far = ((n(a) * distance - n(5 * a)) * distance + n(8 * a)) * distance - n(4 * a)
        return tirx.Select(distance <= n(1), near, far)

    def _number(self, value: float) -> Expr:
        return scalar_of(value, self.call.dtype)
