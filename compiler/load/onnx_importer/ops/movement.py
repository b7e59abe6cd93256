"""Moving and repeating elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.values import Value, shape_of

aten = torch.ops.aten
_LARGEST = (2**31 - 1, 2**63 - 1)


@converts("Transpose")
def transpose(call: Call) -> Value:
    return call.permute(call[0], call.attribute("perm") or list(reversed(range(call.rank()))))


@converts("Reshape")
def reshape(call: Call) -> Value:
    """0 keeps a size unless ``allowzero``; -1 is what remains."""
    shape = call.ints(1, "shape")
    if not call.attribute("allowzero", 0):
        shape = [call.shape()[i] if size == 0 else size for i, size in enumerate(shape)]
    if -1 in shape:
        rest = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = math.prod(call.shape()) // rest if rest else 0
    return call.reshape(call[0], shape)


@converts("Flatten")
def flatten(call: Call) -> Value:
    axis = call.axis(1, call.rank() + 1) if call.attribute("axis", 1) >= 0 else call.axis(1)
    return call.reshape(call[0], [math.prod(call.shape()[:axis]), math.prod(call.shape()[axis:])])


@converts("Squeeze")
def squeeze(call: Call) -> Value:
    axes = call.ints_or_attribute(1, "axes", 13)
    shape = call.shape()
    gone = set(call.places(axes)) if axes else {i for i, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {sorted(gone)} of {list(shape)} are not all of size 1")
    return call.reshape(call[0], [size for i, size in enumerate(shape) if i not in gone])


@converts("Unsqueeze")
def unsqueeze(call: Call) -> Value:
    axes = call.ints_or_attribute(1, "axes", 13) or []
    rank = call.rank() + len(axes)
    new = set(call.places(axes, rank))
    if len(new) < len(axes):
        raise ValueError(f"an axis is named twice in {axes}")
    sizes = iter(call.shape())
    return call.reshape(call[0], [1 if i in new else next(sizes) for i in range(rank)])


@converts("Expand")
def expand(call: Call) -> Value:
    shape = list(np.broadcast_shapes(call.shape(), tuple(call.ints(1, "shape"))))
    return call[0] if tuple(shape) == call.shape() else call.emit(aten.expand.default, call[0], shape)


@converts("Tile")
def tile(call: Call) -> Value:
    repeats = call.ints(1, "repeats")
    return call[0] if set(repeats) <= {1} else call.emit(aten.repeat.default, call[0], repeats)


@converts("Concat")
def concatenate(call: Call) -> Value:
    values = call.all()
    return values[0] if len(values) == 1 else call.emit(aten.cat.default, values, call.axis(None))


@converts("Split")
def split(call: Call) -> list[Value]:
    """Into given sizes, or evenly into as many parts as there are results, the last one smaller."""
    if not all(call.outputs):
        raise ValueError("a part has no name")
    axis = call.axis(0)
    size = call.shape()[axis]
    parts = call.ints_or_attribute(1, "split", 13)
    if parts is None:
        count = int(call.attribute("num_outputs", len(call.outputs)))
        each = -(-size // count)
        parts = [min(each, size - each * i) for i in range(count)]
    if sum(parts) != size or min(parts) < 0 or len(parts) != len(call.outputs):
        raise ValueError(f"parts of {parts} do not make {len(call.outputs)} results out of {size}")
    ends = [sum(parts[: i + 1]) for i in range(len(parts))]
    return [sliced(call, call[0], axis, end - part, end) for part, end in zip(parts, ends, strict=True)]


def sliced(call: Call, value: Value, axis: int, start: int, end: int, *, step: int = 1) -> Value:
    """Slice one axis by places within it; all of it is the value itself."""
    if start == 0 and end == shape_of(value)[axis] and step == 1:
        return value
    return call.emit(aten.slice.Tensor, value, axis, start, end, step)


@converts("Slice")
def slices(call: Call) -> Value:
    """Starts, ends, axes and steps are attributes before opset 10, operands from then on."""
    if call.opset < 10:
        starts, ends = call.attributes["starts"], call.attributes["ends"]
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
        axes = call.ints(3, "axes") if call.get(3) is not None else None
        steps = call.ints(4, "steps") if call.get(4) is not None else None
    value = call[0]
    axes = list(range(len(starts))) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        value = _sliced_by(call, value, call.places([axis])[0], (start, end, step))
    return value


def _sliced_by(call: Call, value: Value, axis: int, wanted: tuple[int, int, int]) -> Value:
    """Slice as ONNX Runtime does; a negative step is a positive one, flipped.

    Unlike in numpy, a negative step from before the first element starts at it, and a negative step towards the
    largest number goes on to the first.
    """
    size = shape_of(value)[axis]
    start, end, step = wanted
    start, end = (place + size if place < 0 else place for place in (start, end))
    if step > 0:
        places = range(min(max(start, 0), size), min(max(end, 0), size), step)
    else:
        end = -1 if wanted[1] in _LARGEST else min(max(end, -1), size - 1)
        places = range(min(max(start, 0), size - 1), end, step)
    if not places:
        return call.emit(aten.slice.Tensor, value, axis, 0, 0, 1)
    if step > 0:
        return sliced(call, value, axis, places[0], places[-1] + 1, step=step)
    forward = sliced(call, value, axis, places[-1], places[0] + 1, step=-step)
    return call.emit(aten.flip.default, forward, [axis])


@converts("DepthToSpace")
def depth_to_space(call: Call) -> Value:
    """Channels become blocks of pixels; in mode CRD as ATen's pixel_shuffle does it."""
    block = int(call.attributes["blocksize"])
    if call.attribute("mode", "DCR") == "CRD":
        return call.emit(aten.pixel_shuffle.default, call[0], block)
    n, c, h, w = call.shape()
    return _regrouped(call, [n, block, block, c // block**2, h, w], [0, 3, 4, 1, 5, 2], [n, -1, h * block, w * block])


@converts("SpaceToDepth")
def space_to_depth(call: Call) -> Value:
    """Blocks of pixels become channels; in mode CRD as ATen's pixel_unshuffle does it."""
    block = int(call.attributes["blocksize"])
    n, c, h, w = call.shape()
    if call.attribute("mode", "DCR") == "CRD":
        return call.emit(aten.pixel_unshuffle.default, call[0], block)
    split = [n, c, h // block, block, w // block, block]
    return _regrouped(call, split, [0, 3, 5, 1, 2, 4], [n, c * block**2, h // block, w // block])


def _regrouped(call: Call, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> Value:
    parts = call.permute(call.reshape(call[0], split), order)
    volume = math.prod(shape_of(parts))
    rest = math.prod(size for size in shape if size != -1)
    return call.reshape(parts, [volume // rest if size == -1 else size for size in shape])
