"""Padding."""

from __future__ import annotations

import torch

from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.ops.movement import sliced
from lvc.compiler.load.onnx_importer.values import Value, check_size, constant, shape_of
from lvc.compiler.load.onnx_importer.windows import flat_pads

aten = torch.ops.aten


@converts("Pad")
def pad(call: Call) -> Value:
    """Negative pads crop. Pads and value are attributes before opset 11, operands from then on."""
    rank = call.rank()
    if call.opset < 11:
        pads, value = list(call.attributes["pads"]), float(call.attribute("value", 0.0))
    else:
        pads, value = call.ints(1, "pads"), call.number(2, "value")
    axes = call.places(call.ints(3, "axes")) if call.get(3) is not None else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        pairs[axis] = (pads[index], pads[index + len(axes)])
    if not any(any(pair) for pair in pairs):
        return call[0]
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        first = next(axis for axis, pair in enumerate(pairs) if any(pair))
        return call.emit(aten.constant_pad_nd.default, call[0], flat_pads(pairs[first:]), value)
    return _mirrored(call, pairs, mode)


def _mirrored(call: Call, pairs: list[tuple[int, int]], mode: str) -> Value:
    """Reflect, repeat the edge or wrap around: by ATen's pad on a picture, by index elsewhere."""
    sizes = (size + sum(pair) for size, pair in zip(call.shape(), pairs, strict=True))
    check_size(TensorSpec(tuple(sizes), call.dtype()))
    x, aten_mode = call[0], {"reflect": "reflect", "edge": "replicate"}.get(mode)
    is_picture = len(pairs) == 4 and not any(pairs[0]) and not any(pairs[1])
    fits = all(0 <= p < size for pair, size in zip(pairs, call.shape(), strict=True) for p in pair if p)
    if aten_mode and is_picture and fits and call.dtype().is_floating_point:
        return call.emit(aten.pad.default, x, flat_pads(pairs[2:]), aten_mode)
    for axis, (before, after) in enumerate(pairs):
        size = shape_of(x)[axis]
        begin, end = max(-before, 0), size - max(-after, 0)
        x = sliced(call, x, axis, begin, end)
        if before > 0 or after > 0:
            source = [_source(i, end - begin, mode) for i in range(-max(before, 0), end - begin + max(after, 0))]
            x = call.emit(aten.index_select.default, x, axis, constant(source))
    return x


def _source(place: int, size: int, mode: str) -> int:
    """The element that a padded place repeats."""
    if mode == "wrap":
        return place % size
    if mode == "edge":
        return min(max(place, 0), size - 1)
    if mode != "reflect":
        raise ValueError(f"mode cannot be '{mode}'")
    period = max(2 * (size - 1), 1)
    place %= period
    return min(place, period - place)
