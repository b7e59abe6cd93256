"""Normalisations. Scales and shifts that PyTorch leaves out are written as ones and zeros."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec


def batch_norm(w: GraphWriter, node: Node) -> str:
    if arguments(node)["training"]:
        raise w.refuse("it runs in training mode")
    return _with_statistics(w, node)


def _with_statistics(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    scale, shift = _scale_and_shift(w, node, spec(node).shape[1])
    statistics = (w.name(args["running_mean"]), w.name(args["running_var"]))
    return w.emit("BatchNormalization", w.name(args["input"]), scale, shift, *statistics, epsilon=args["eps"])


def layer_norm(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    axis = len(spec(node).shape) - len(args["normalized_shape"])
    scale = _or_filled(w, args["weight"], args["normalized_shape"], 1.0, node)
    shift = [] if args["bias"] is None else [w.name(args["bias"])]
    return w.emit("LayerNormalization", w.name(args["input"]), scale, *shift, axis=axis, epsilon=args["eps"])


def group_norm(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    x, groups, shape = w.name(args["input"]), args["num_groups"], spec(node).shape
    scale, shift = _scale_and_shift(w, node, shape[1])
    if w.opset >= 21:
        return w.emit("GroupNormalization", x, scale, shift, num_groups=groups, epsilon=args["eps"])
    ones, zeros = (w.constant(torch.full([groups], fill), spec(node).dtype) for fill in (1.0, 0.0))
    grouped = w.reshape(x, [shape[0], groups, -1])
    normal = w.reshape(w.emit("InstanceNormalization", grouped, ones, zeros, epsilon=args["eps"]), shape)
    per_channel = [shape[1], *[1] * (len(shape) - 2)]
    return w.emit("Add", w.emit("Mul", normal, w.reshape(scale, per_channel)), w.reshape(shift, per_channel))


def instance_norm(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    if not args["use_input_stats"]:
        return _with_statistics(w, node)
    scale, shift = _scale_and_shift(w, node, spec(node).shape[1])
    return w.emit("InstanceNormalization", w.name(args["input"]), scale, shift, epsilon=args["eps"])


def softmax(kind: str) -> Callable[[GraphWriter, Node], str]:
    def write(w: GraphWriter, node: Node) -> str:
        args = arguments(node)
        return w.emit(kind, w.cast(args["self"], spec(node).dtype), axis=args["dim"])

    return write


def _scale_and_shift(w: GraphWriter, node: Node, channels: int) -> tuple[str, str]:
    args = arguments(node)
    return _or_filled(w, args["weight"], [channels], 1.0, node), _or_filled(w, args["bias"], [channels], 0.0, node)


def _or_filled(w: GraphWriter, given: Node | None, shape: list[int], fill: float, node: Node) -> str:
    return w.constant(torch.full(shape, fill), spec(node).dtype) if given is None else w.name(given)


WRITERS = {
    aten.batch_norm.default: batch_norm,
    aten.layer_norm.default: layer_norm,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.softmax.int: softmax("Softmax"),
    aten.log_softmax.int: softmax("LogSoftmax"),
}
