"""Pooling and interpolation, in general form: any layout, any window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm.extremes import largest, lowest
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, scalar_of

aten = torch.ops.aten


def _unsqueezed(array: Array) -> tuple[Array, Callable[[Index], list[Expr]]]:
    """An array of rank 3 as one of rank 4, and the way back for indices."""
    if len(array.shape) == 4:
        return array, list
    return Array((1, *array.shape), array.dtype, lambda index: array.read(index[1:])), lambda index: [0, *index]


def _window(call: Call, reducer: Callable[..., Expr], empty: Expr, dilation: Sequence[int] = (1, 1)) -> Array:
    """Reduce the windows of the last two dimensions; what lies outside counts as ``empty``."""
    operand, up = _unsqueezed(call["self"])
    n, c, height, width = operand.shape
    (kh, kw), (sh, sw), (ph, pw) = call["kernel_size"], call["stride"], call["padding"]
    shape = (n, c, *call.shape[-2:])
    i, j = call.scope.axis(kh, "kh"), call.scope.axis(kw, "kw")

    def body(index: Index) -> Expr:
        y = index[2] * sh + i.var * dilation[0] - ph
        x = index[3] * sw + j.var * dilation[1] - pw
        value = operand.read([index[0], index[1], y, x])
        inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
        inside = call.scope.simplify(inside)
        return reducer(tirx.if_then_else(inside, value, empty), axis=[i, j])

    layout = call.layout if len(call.shape) == 4 else type(call.layout)()
    stage = call.scope.stage(shape, body, layout=layout)
    return Array(shape, operand.dtype, lambda index: stage.read(up(index) if len(index) == 3 else index))


@lowers(aten.max_pool2d.default)
def max_pool(call: Call) -> Array:
    """The largest element of each window."""
    return Array(call.shape, call.dtype, _window(call, largest, lowest(call.dtype), call["dilation"]).read)


@lowers(aten.avg_pool2d.default)
def avg_pool(call: Call) -> Array:
    """The mean of each window, over all its places, those inside, or a given number."""
    total = _window(call, te.sum, scalar_of(0, call.dtype))
    counts = _counts(call)

    def read(index: Index) -> Expr:
        value = total.read(index)
        if isinstance(counts, float):
            return value * scalar_of(counts, call.dtype)
        return value * counts[0].read((index[-2],)) * counts[1].read((index[-1],))

    return call.result(read)


def _counts(call: Call) -> float | tuple[Array, Array]:
    """The factor of each window: one number, or one for each row and each column."""
    kernel: Sequence[int] = call["kernel_size"]
    stride, padding = call["stride"], call["padding"]
    if call["divisor_override"]:
        return 1.0 / int(call["divisor_override"])
    sizes, axes = call["self"].shape[-2:], []
    for size, out, k, s, p in zip(sizes, call.shape[-2:], kernel, stride, padding, strict=True):
        start = np.arange(out) * s - p
        low, high = (-p, size + p) if call["count_include_pad"] else (0, size)
        axes.append(np.minimum(start + k, high) - np.maximum(start, low))
    if all((axis == k).all() for axis, k in zip(axes, kernel, strict=True)):
        return 1.0 / (kernel[0] * kernel[1])
    rows, columns = (
        call.scope.constant(f"{call.node.name} {name}", (1.0 / axis).astype(call.dtype))
        for name, axis in zip(("rows", "columns"), axes, strict=True)
    )
    return rows, columns


@lowers(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool(call: Call) -> Array:
    """The means of nearly equal windows, side by side in rows and columns."""
    operand, up = _unsqueezed(call["self"])
    n, c, height, width = operand.shape
    oh, ow = call.shape[-2:]
    if height % oh == 0 and width % ow == 0:
        return call.result(lambda index: _even_windows(call, operand).read(up(index)))
    kh = max(-(-(y + 1) * height // oh) - y * height // oh for y in range(oh))
    kw = max(-(-(x + 1) * width // ow) - x * width // ow for x in range(ow))
    i, j = call.scope.axis(kh, "kh"), call.scope.axis(kw, "kw")

    def bounds(at: Expr, size: int, out: int) -> tuple[Expr, Expr]:
        return at * size // out, ((at + 1) * size + out - 1) // out

    def body(index: Index) -> Expr:
        (top, bottom), (left, right) = bounds(index[2], height, oh), bounds(index[3], width, ow)
        y, x = top + i.var, left + j.var
        value = operand.read([index[0], index[1], y, x])
        return te.sum(tirx.if_then_else(tirx.all(y < bottom, x < right), value, scalar_of(0, call.dtype)), axis=[i, j])

    total = call.scope.stage((n, c, oh, ow), body, layout=call.layout if len(call.shape) == 4 else type(call.layout)())

    def read(index: Index) -> Expr:
        (top, bottom), (left, right) = bounds(index[-2], height, oh), bounds(index[-1], width, ow)
        count = tirx.Cast(call.dtype, (bottom - top) * (right - left))
        return total.read(up(index)) / count

    return call.result(read)


def _even_windows(call: Call, operand: Array) -> Array:
    n, c, height, width = operand.shape
    oh, ow = call.shape[-2:]
    kh, kw = height // oh, width // ow
    i, j = call.scope.axis(kh, "kh"), call.scope.axis(kw, "kw")

    def body(index: Index) -> Expr:
        value = operand.read([index[0], index[1], index[2] * kh + i.var, index[3] * kw + j.var])
        return te.sum(value, axis=[i, j])

    layout = call.layout if len(call.shape) == 4 else type(call.layout)()
    total = call.scope.stage((n, c, oh, ow), body, layout=layout)
    factor = scalar_of(1 / (kh * kw), call.dtype)
    return Array(total.shape, call.dtype, lambda index: total.read(index) * factor)


def _scales(call: Call) -> list[float]:
    """Input pixels per output pixel, as PyTorch computes them: it leaves factors aside where a size stays as it is, and
    for the nearest pixel also where it doubles."""
    sizes, given = call["input"].shape[-2:], call["scale_factors"] or (None, None)
    target = call.node.target
    plain = (1, 2) if target is aten.upsample_nearest2d.vec else (1,) if target is aten.upsample_bilinear2d.vec else ()
    return [
        size / out if factor is None or any(out == times * size for times in plain) else 1 / float(factor)
        for size, out, factor in zip(sizes, call.shape[-2:], given, strict=True)
    ]


@lowers(aten.upsample_nearest2d.vec)
def upsample_nearest(call: Call) -> Array:
    """The pixel at or before the exact place."""
    operand: Array = call["input"]
    rows, columns = (
        _nearest(call, name, size, out, scale)
        for name, size, out, scale in zip("yx", operand.shape[-2:], call.shape[-2:], _scales(call), strict=True)
    )

    def read(index: Index) -> Expr:
        *lead, y, x = index
        return rows(y, lambda row: columns(x, lambda column: operand.read([*lead, row, column])))

    return call.result(read)


# read at the input row or column that belongs to an output row or column
Place = Callable[[Expr, Callable[[Expr], Expr]], Expr]


def _nearest(call: Call, name: str, size: int, out: int, scale: float) -> Place:
    if out % size == 0 and scale == size / out:
        return lambda i, read: read(i // (out // size))
    table = np.minimum((np.arange(out, dtype=np.float32) * np.float32(scale)).astype(np.int32), size - 1)
    places = call.scope.constant(f"{call.node.name} {name}", table)
    return lambda i, read: call.scope.lookup(places.read((i,)), size, read)


@lowers(aten.upsample_bilinear2d.vec)
def upsample_bilinear(call: Call) -> Array:
    """Weighted sums of the four pixels around the exact place."""
    return _separable(call, 2)


@lowers(aten.upsample_bicubic2d.vec)
def upsample_bicubic(call: Call) -> Array:
    """Weighted sums of the 16 pixels around the exact place; cubic convolution with a = -0.75."""
    return _separable(call, 4)


def _separable(call: Call, taps: int) -> Array:
    """Interpolate rows, then columns, by weights and places that are known when the model is built."""
    operand: Array = call["input"]
    (tall, high), (wide, broad) = _taps(call, 0, taps), _taps(call, 1, taps)
    n, c, _, width = operand.shape

    def row(index: Index) -> Expr:
        *lead, y, x = index
        terms = [high(t, y) * tall(t, y, lambda at: operand.read([*lead, at, x])) for t in range(taps)]
        return sum(terms[1:], terms[0])

    rows = call.scope.stage((n, c, call.shape[2], width), row, layout=call.layout)

    def column(index: Index) -> Expr:
        *lead, x = index
        terms = [broad(t, x) * wide(t, x, lambda at: rows.read([*lead, at])) for t in range(taps)]
        return sum(terms[1:], terms[0])

    return call.result(column)


Weight = Callable[[int, Expr], Expr]
Tap = Callable[[int, Expr, Callable[[Expr], Expr]], Expr]


def _taps(call: Call, axis: int, taps: int) -> tuple[Tap, Weight]:
    """Places and weights of each tap for each output row (axis 0) or column (axis 1)."""
    size, out, scale = call["input"].shape[axis - 2], call.shape[axis - 2], _scales(call)[axis]
    at = np.arange(out, dtype=np.float64)
    if call["align_corners"]:
        exact = at * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        exact = (at + 0.5) * scale - 0.5
        exact = np.maximum(exact, 0) if taps == 2 else exact
    base = np.floor(exact)
    t = exact - base
    if taps == 2:
        offsets, weights = [0, 1], [1 - t, t]
    else:
        offsets, weights = [-1, 0, 1, 2], [_cubic(t + 1), _cubic(t), _cubic(1 - t), _cubic(2 - t)]
    places = [np.clip(base + offset, 0, size - 1).astype(np.int32) for offset in offsets]
    name = f"{call.node.name} {'yx'[axis]}"
    place = [call.scope.constant(f"{name}{i} at", p) for i, p in enumerate(places)]
    weight = [call.scope.constant(f"{name}{i} by", w.astype(call.dtype)) for i, w in enumerate(weights)]

    def tap(i: int, o: Expr, read: Callable[[Expr], Expr]) -> Expr:
        return call.scope.lookup(place[i].read((o,)), size, read)

    return tap, lambda i, o: weight[i].read((o,))


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at a distance."""
    a = -0.75
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.asarray(np.where(x <= 1, near, far))
