"""Pooling over windows and over everything."""

from __future__ import annotations

import math
from functools import reduce

import torch

from lvc.compiler.load.normalise.places import max_places
from lvc.compiler.load.normalise.volumes import avg_pool3d, conv3d, max_pool3d
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.ops.convolution import as_line, as_plane, on_plane, spatial_rank
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value, constant, dtype_of, shape_of
from lvc.compiler.load.onnx_importer.windows import Window, flat_pads, read_windows

aten = torch.ops.aten


@converts("MaxPool")
def max_pool(call: Call) -> list[Value]:
    """Padding that ATen cannot express becomes an explicit one with the lowest value."""
    places = [_places(call)] if call.reads(1) else []
    rank, dtype = spatial_rank(call), call.dtype()
    windows = on_plane(_windows(call))
    x = as_plane(call, call[0])
    if not dtype.is_floating_point:
        x = call.cast(x, torch.float32)
    if rank < 3 and all(w.is_symmetric and w.before <= w.kernel // 2 for w in windows):
        padding = [w.before for w in windows]
    else:
        padding = [0] * len(windows)
        x = call.emit(
            aten.constant_pad_nd.default, x, flat_pads([(w.before, w.needed_after) for w in windows]), float("-inf")
        )
    sizes = [w.kernel for w in windows], [w.stride for w in windows], padding, [w.dilation for w in windows]
    if rank == 3:
        return [call.cast(by_meaning(call, max_pool3d, x, *sizes), dtype)]
    return [call.cast(as_line(call, call.emit(aten.max_pool2d.default, x, *sizes), rank), dtype), *places]


def _places(call: Call) -> Value:
    """Where the maxima are in all elements of the operand: row by row, or column by column in each plane."""
    rank, x = spatial_rank(call), as_plane(call, call[0])
    if rank > 2:
        raise Unsupported("is asked for the places of its maxima, over more than two axes")
    if not call.dtype().is_floating_point:
        x = call.cast(x, torch.float32)
    windows, (images, channels, height, width) = on_plane(_windows(call)), shape_of(x)
    each = zip(*((w.kernel, w.stride, w.before, w.needed_after, w.dilation) for w in windows), strict=True)
    by_columns = bool(call.attribute("storage_order", 0))
    found: Value = by_meaning(call, max_places, x, list(map(list, each)), by_columns=by_columns)
    first = torch.arange(images * channels).reshape(images, channels, 1, 1) * (height * width)
    return as_line(call, call.emit(aten.add.Tensor, found, Constant(first)), rank)


@converts("MaxUnpool")
def max_unpool(call: Call) -> Value:
    """Each element at its place among all of the result, which is otherwise zero."""
    kernel = [int(n) for n in call.attribute("kernel_shape")]
    pads, strides = call.attribute("pads") or [0] * 2 * len(kernel), call.attribute("strides") or [1] * len(kernel)
    around = [pads[i] + pads[i + len(kernel)] for i in range(len(kernel))]
    sides = zip(call.shape()[2:], kernel, strides, around, strict=True)
    shape = [*call.shape()[:2], *((size - 1) * int(step) - pad + side for size, side, step, pad in sides)]
    if call.get(2) is not None and call.ints(2, "output_shape") != shape:
        raise Unsupported("has an output_shape that its windows do not fill, of which readers of ONNX differ")

    def spread(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return torch.zeros(math.prod(shape), dtype=x.dtype).scatter(0, places.flatten(), x.flatten()).reshape(shape)

    result: Value = by_meaning(call, spread, call[0], call[1])
    return result


@converts("AveragePool")
def average_pool(call: Call) -> Value:
    rank = spatial_rank(call)
    include = bool(call.attribute("count_include_pad", 0))
    return as_line(call, _averaged(call, as_plane(call, call[0]), on_plane(_windows(call)), include), rank)


@converts("LpPool")
def lp_pool(call: Call) -> Value:
    """(sum of |x|^p over each window)^(1/p)."""
    rank, p = spatial_rank(call), float(call.attribute("p", 2))
    windows = on_plane(_windows(call))
    x = as_plane(call, call.emit(aten.abs.default, call[0]))
    raised = call.emit(aten.pow.Tensor_Tensor, x, constant(p, dtype_of(x)))
    total = _summed(call, raised, windows)
    return as_line(call, call.emit(aten.pow.Tensor_Tensor, total, constant(1 / p, dtype_of(x))), rank)


def _windows(call: Call) -> list[Window]:
    windows = read_windows(call, [int(n) for n in call.attribute("kernel_shape")])
    same = str(call.attribute("auto_pad", "NOTSET")).startswith("SAME")
    if same and any(w.dilation > 1 or (w.count - 1) * w.stride + w.extent < w.size - 1 for w in windows):
        raise Unsupported("has auto_pad=SAME and windows with gaps, of which readers of ONNX differ: give its pads")
    return windows


def _averaged(call: Call, x: Value, windows: list[Window], include: bool) -> Value:
    """Average by ATen where it counts alike; else sum explicitly padded windows and divide by the true counts."""
    plain = len(windows) == 2 and all(w.is_symmetric and w.before <= w.kernel // 2 and w.dilation == 1 for w in windows)
    counted = [w.tap_counts(include) for w in windows]
    if plain and all(_aten_counts(w, include) == counts for w, counts in zip(windows, counted, strict=True)):
        kernel, strides = [w.kernel for w in windows], [w.stride for w in windows]
        return call.emit(aten.avg_pool2d.default, x, kernel, strides, [w.before for w in windows], False, include)
    counts = reduce(lambda whole, axis: whole[..., None] * torch.tensor(axis), counted, torch.tensor(1))
    scale = constant(1.0 / counts.clamp(min=1).to(torch.float64), dtype_of(x))
    return call.emit(aten.mul.Tensor, _summed(call, x, windows), scale)


def _aten_counts(window: Window, include: bool) -> list[int]:
    """The divisors of ATen's average pooling with the same padding on both sides."""
    low, high = (-window.before, window.size + window.before) if include else (0, window.size)
    starts = range(-window.before, window.count * window.stride - window.before, window.stride)
    return [min(start + window.kernel, high) - max(start, low) for start in starts]


def _summed(call: Call, x: Value, windows: list[Window]) -> Value:
    """Sum each window: an average times its size, or a depthwise convolution with ones where taps are spaced."""
    pads = [(w.before, w.needed_after) for w in windows]
    if any(any(pair) for pair in pads):
        x = call.emit(aten.constant_pad_nd.default, x, flat_pads(pads), 0.0)
    kernel, strides = [w.kernel for w in windows], [w.stride for w in windows]
    if all(w.dilation == 1 for w in windows):
        if len(windows) == 3:
            mean = by_meaning(call, avg_pool3d, x, kernel, strides)
        else:
            mean = call.emit(aten.avg_pool2d.default, x, kernel, strides)
        return call.emit(aten.mul.Tensor, mean, float(math.prod(kernel)))
    channels, dilations = shape_of(x)[1], [w.dilation for w in windows]
    ones = Constant(torch.ones(channels, 1, *kernel, dtype=dtype_of(x)))
    if len(windows) == 3:
        volume: Value = by_meaning(call, conv3d, x, ones, None, strides, 0, dilations, channels)
        return volume
    return call.emit(aten.conv2d.default, x, ones, None, strides, [0, 0], dilations, channels)


@converts("GlobalAveragePool")
def global_average_pool(call: Call) -> Value:
    return call.emit(aten.mean.dim, call[0], _spatial(call), True)


@converts("GlobalMaxPool")
def global_max_pool(call: Call) -> Value:
    return call.emit(aten.amax.default, call[0], _spatial(call), True)


@converts("GlobalLpPool")
def global_lp_pool(call: Call) -> Value:
    p = float(call.attribute("p", 2))
    return call.emit(aten.linalg_vector_norm.default, call[0], p, _spatial(call), True)


def _spatial(call: Call) -> list[int]:
    if call.rank() < 3:
        raise ValueError(f"data of {call.rank()} dimensions have no spatial ones")
    return list(range(2, call.rank()))
