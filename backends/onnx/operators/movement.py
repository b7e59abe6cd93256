"""Operators that move or repeat elements."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec

_TO_THE_START = -(1 << 62)
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def reshape(w: GraphWriter, node: Node) -> str:
    return w.reshape(w.name(arguments(node)["self"]), spec(node).shape)


def permute(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("Transpose", w.name(args["self"]), perm=[dim % len(args["dims"]) for dim in args["dims"]])


def expand(w: GraphWriter, node: Node) -> str:
    return w.emit("Expand", w.name(arguments(node)["self"]), w.constant(list(spec(node).shape)))


def repeat(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    shape, repeats = spec(args["self"]).shape, list(args["repeats"])
    x = w.name(args["self"])
    if len(repeats) > len(shape):
        x = w.reshape(x, [*[1] * (len(repeats) - len(shape)), *shape])
    return w.emit("Tile", x, w.constant(repeats))


def cat(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    rank, dtype = len(spec(node).shape), spec(node).dtype
    operands = [operand for operand in args["tensors"] if len(spec(operand).shape) == rank]
    return w.emit("Concat", *(w.cast(operand, dtype) for operand in operands), axis=args["dim"] % rank)


def slice_(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    size = spec(args["self"]).shape[args["dim"]]
    start, end, step = slice(args["start"], args["end"], args["step"]).indices(size)
    return _slice(w, w.name(args["self"]), args["dim"], slice(start, max(start, end), step))


def _slice(w: GraphWriter, x: str, dim: int, part: slice) -> str:
    bounds = (part.start, part.stop, dim, part.step or 1)
    return w.emit("Slice", x, *(w.constant([bound]) for bound in bounds))


def roll(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    x, shape = w.name(args["self"]), spec(node).shape
    if not args["dims"]:
        flat = w.reshape(x, [spec(node).elements])
        return w.reshape(_roll(w, flat, 0, args["shifts"][0], spec(node).elements), shape)
    for dim, shift in zip(args["dims"], args["shifts"], strict=True):
        x = _roll(w, x, dim % len(shape), shift, shape[dim])
    return x


def _roll(w: GraphWriter, x: str, dim: int, shift: int, size: int) -> str:
    start = (-shift) % max(1, size)
    return w.emit("Concat", _slice(w, x, dim, slice(start, size)), _slice(w, x, dim, slice(0, start)), axis=dim)


def flip(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    x = w.name(args["self"])
    for dim in args["dims"]:
        x = _slice(w, x, dim, slice(-1, _TO_THE_START, -1))
    return x


def constant_pad(w: GraphWriter, node: Node) -> str:
    return _pad(w, arguments(node), len(spec(node).shape))


def pad(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    mode = _PAD_MODES[args["mode"]]
    if mode == "wrap" and w.opset < 19:
        raise w.refuse("circular padding needs opset 19")
    return _pad(w, args, len(spec(node).shape), mode)


def _pad(w: GraphWriter, args: dict[str, Any], rank: int, mode: str = "constant") -> str:
    """PyTorch lists pairs from the last dimension on; ONNX lists all the beginnings, then all the ends."""
    widths = [*args["pad"], *[0] * (2 * rank - len(args["pad"]))]
    ordered = [*reversed(widths[0::2]), *reversed(widths[1::2])]
    value = [w.constant(args["value"] or 0, spec(args["self"]).dtype)] if mode == "constant" else []
    return w.emit("Pad", w.name(args["self"]), w.constant(ordered), *value, mode=mode)


def index_select(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("Gather", w.name(args["self"]), w.name(args["index"]), axis=args["dim"])


def gather(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("GatherElements", w.name(args["self"]), w.name(args["index"]), axis=args["dim"])


def embedding(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("Gather", w.name(args["weight"]), w.name(args["indices"]), axis=0)


def pixel_shuffle(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    shape, factor = spec(args["self"]).shape, args["upscale_factor"]
    if len(shape) == 4:
        return w.emit("DepthToSpace", w.name(args["self"]), blocksize=factor, mode="CRD")
    *batch, channels, height, width = shape
    split = [*batch, channels // factor**2, factor, factor, height, width]
    return _shuffle(w, w.name(args["self"]), split, (0, 3, 1, 4, 2), spec(node).shape)


def pixel_unshuffle(w: GraphWriter, node: Node) -> str:
    """Channels outermost, then the place in the block: not the order of ONNX's SpaceToDepth."""
    args = arguments(node)
    *batch, channels, height, width = spec(args["self"]).shape
    factor = args["downscale_factor"]
    split = [*batch, channels, height // factor, factor, width // factor, factor]
    return _shuffle(w, w.name(args["self"]), split, (0, 2, 4, 1, 3), spec(node).shape)


def _shuffle(w: GraphWriter, x: str, split: list[int], order: tuple[int, ...], shape: tuple[int, ...]) -> str:
    outer = len(split) - len(order)
    perm = [*range(outer), *(outer + dim for dim in order)]
    return w.reshape(w.emit("Transpose", w.reshape(x, split), perm=perm), shape)


WRITERS = {
    aten.reshape.default: reshape,
    aten.permute.default: permute,
    aten.expand.default: expand,
    aten.repeat.default: repeat,
    aten.cat.default: cat,
    aten.slice.Tensor: slice_,
    aten.roll.default: roll,
    aten.flip.default: flip,
    aten.constant_pad_nd.default: constant_pad,
    aten.pad.default: pad,
    aten.index_select.default: index_select,
    aten.gather.default: gather,
    aten.embedding.default: embedding,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
}
