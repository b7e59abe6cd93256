"""Convolution and transposed convolution, over one to three axes."""

from __future__ import annotations

from dataclasses import replace

import torch

from lvc.compiler.load.normalise.volumes import conv3d, conv_transpose3d
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Unsupported, Value, shape_of
from lvc.compiler.load.onnx_importer.windows import Window, auto_padded, flat_pads, given_windows, read_windows

aten = torch.ops.aten


def spatial_rank(call: Call) -> int:
    """Return 1, 2 or 3, the number of axes over which convolutions and poolings work."""
    rank = call.rank() - 2
    if rank not in (1, 2, 3):
        raise Unsupported(f"works over {rank} spatial axes; there are one, two and three")
    return rank


def as_plane(call: Call, value: Value) -> Value:
    """Give data or a weight of one spatial axis a second one of size 1 before it."""
    shape = shape_of(value)
    return value if len(shape) > 3 else call.reshape(value, [*shape[:2], 1, *shape[2:]])


def as_line(call: Call, value: Value, rank: int) -> Value:
    """Undo `as_plane` on a result."""
    shape = shape_of(value)
    return value if rank > 1 else call.reshape(value, [*shape[:2], *shape[3:]])


def on_plane(windows: list[Window]) -> list[Window]:
    return windows if len(windows) > 1 else [Window(1, 1, 1, 1, 0, 0), *windows]


@converts("Conv")
def convolution(call: Call) -> Value:
    return convolved(call, call[0], call[1], call.get(2))


def convolved(call: Call, x: Value, weight: Value, bias: Value | None) -> Value:
    """Convolve by the node's attributes; padding that ATen cannot express becomes an explicit one before."""
    rank = spatial_rank(call)
    windows = on_plane(read_windows(call, _kernel(call, weight)))
    x, weight = as_plane(call, x), as_plane(call, weight)
    if all(window.is_symmetric and window.before >= 0 for window in windows):
        padding = [window.before for window in windows]
    else:
        padding = [0] * len(windows)
        x = call.emit(aten.constant_pad_nd.default, x, flat_pads([(w.before, w.after) for w in windows]), 0.0)
    strides, dilations = [w.stride for w in windows], [w.dilation for w in windows]
    groups = int(call.attribute("group", 1))
    if rank == 3:
        volume: Value = by_meaning(call, conv3d, x, weight, bias, strides, padding, dilations, groups)
        return volume
    return as_line(call, call.emit(aten.conv2d.default, x, weight, bias, strides, padding, dilations, groups), rank)


def _kernel(call: Call, weight: Value) -> tuple[int, ...]:
    kernel = shape_of(weight)[2:]
    if tuple(call.attribute("kernel_shape") or kernel) != kernel:
        raise ValueError(f"kernel_shape is {call.attribute('kernel_shape')}, and the weights' is {list(kernel)}")
    return kernel


@converts("ConvTranspose")
def transposed_convolution(call: Call) -> Value:
    """The output is cropped by the pads: evenly by ATen's padding, the rest by slices."""
    rank = spatial_rank(call)
    kernel = _kernel(call, call[1])
    extra = [int(n) for n in call.attribute("output_padding") or [0] * rank]
    placed = [_placed(call, window, axis, extra[axis]) for axis, window in enumerate(given_windows(call, kernel))]
    windows = on_plane([window for window, _ in placed])
    extra = ([0] if rank == 1 else []) + [more for _, more in placed]
    padding, surplus, crops = [], [], []
    for window, more in zip(windows, extra, strict=True):
        end = more + window.before - window.after
        fits = window.before >= 0 and end < max(window.stride, window.dilation)
        begin = window.before if fits else 0
        end = end if fits else more - window.after
        if window.before < 0 or end >= max(window.stride, window.dilation):
            raise Unsupported("has pads that enlarge its output")
        padding.append(begin)
        surplus.append(max(end, 0))
        crops.append((window.before - begin, max(-end, 0)))
    operands = as_plane(call, call[0]), as_plane(call, call[1]), call.get(2)
    strides, dilations, groups = [w.stride for w in windows], [w.dilation for w in windows], call.attribute("group", 1)
    options = (strides, padding, surplus, int(groups), dilations)
    if rank == 3:
        result = by_meaning(call, conv_transpose3d, *operands, *options)
    else:
        result = call.emit(aten.conv_transpose2d.input, *operands, *options)
    for axis, (begin, end) in enumerate(crops, 2):
        if begin or end:
            result = call.emit(aten.slice.Tensor, result, axis, begin, shape_of(result)[axis] - end, 1)
    return as_line(call, result, rank)


def _placed(call: Call, window: Window, axis: int, extra: int) -> tuple[Window, int]:
    """Find the pads and the output padding of one axis, which may follow from ``output_shape`` or ``auto_pad``."""
    mode = call.attribute("auto_pad", "NOTSET")
    wanted = call.attribute("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        return (window if mode == "NOTSET" else auto_padded(window, mode)), extra
    size = int(wanted[-len(call.shape()[2:]) :][axis]) if wanted else window.size * window.stride
    total = window.stride * (window.size - 1) + extra + window.extent - size
    if total < 0 and wanted is None:
        raise Unsupported(f"has auto_pad={mode} and steps beyond its kernel, of which readers of ONNX differ")
    extra, total = extra + max(-total, 0), max(total, 0)
    small, large = total // 2, total - total // 2
    before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
    return replace(window, before=before, after=after), extra


@converts("ConvInteger")
def integer_convolution(call: Call) -> Value:
    """In 64-bit floating point, which holds every sum of products of 8-bit numbers exactly."""
    x = _centred(call, call[0], call.get(2), [])
    zero = call.get(3)
    per_channel = [-1] + [1] * (call.rank(1) - 1) if zero is not None and len(shape_of(zero)) else []
    return call.cast(convolved(call, x, _centred(call, call[1], zero, per_channel), None), torch.int32)


def _centred(call: Call, value: Value, zero: Value | None, shape: list[int]) -> Value:
    value = call.cast(value, torch.float64)
    if zero is None:
        return value
    zero = call.emit(aten.reshape.default, call.cast(zero, torch.float64), shape)
    return call.emit(aten.sub.Tensor, value, zero)
