"""Activation functions: ONNX's own where the opset has it, else by its formula."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec


def simple(kind: str) -> Callable[[GraphWriter, Node], str]:
    def write(w: GraphWriter, node: Node) -> str:
        return w.emit(kind, w.cast(arguments(node)["self"], spec(node).dtype))

    return write


def clamp(w: GraphWriter, node: Node) -> str:
    args, dtype = arguments(node), spec(node).dtype
    operands = [w.cast(args["self"], dtype)]
    operands += ["" if args[key] is None else w.constant(args[key], dtype) for key in ("min", "max")]
    while not operands[-1]:
        operands.pop()
    return w.emit("Clip", *operands)


def silu(w: GraphWriter, node: Node) -> str:
    x = w.name(arguments(node)["self"])
    return w.emit("Mul", x, w.emit("Sigmoid", x))


def hardsigmoid(w: GraphWriter, node: Node) -> str:
    return w.emit("HardSigmoid", w.name(arguments(node)["self"]), alpha=1 / 6, beta=0.5)


def gelu(w: GraphWriter, node: Node) -> str:
    args, dtype = arguments(node), spec(node).dtype
    x = w.name(args["self"])
    if w.opset >= 20:
        return w.emit("Gelu", x, approximate=args["approximate"])
    if args["approximate"] == "tanh":
        cube = w.emit("Mul", w.emit("Mul", w.emit("Mul", x, x), x), w.constant(0.044715, dtype))
        inner = w.emit("Mul", w.emit("Add", x, cube), w.constant(math.sqrt(2 / math.pi), dtype))
        curve = w.emit("Tanh", inner)
    else:
        curve = w.emit("Erf", w.emit("Mul", x, w.constant(math.sqrt(0.5), dtype)))
    half = w.emit("Mul", x, w.constant(0.5, dtype))
    return w.emit("Mul", half, w.emit("Add", curve, w.constant(1.0, dtype)))


def mish(w: GraphWriter, node: Node) -> str:
    x = w.name(arguments(node)["self"])
    if w.opset >= 18:
        return w.emit("Mish", x)
    return w.emit("Mul", x, w.emit("Tanh", w.emit("Softplus", x)))


def softplus(w: GraphWriter, node: Node) -> str:
    """``log(1 + exp(beta*x)) / beta``; PyTorch's threshold only avoids overflow, which ONNX's operator does too."""
    args, dtype = arguments(node), spec(node).dtype
    x = w.name(args["self"])
    if args["beta"] == 1:
        return w.emit("Softplus", x)
    beta = w.constant(args["beta"], dtype)
    return w.emit("Div", w.emit("Softplus", w.emit("Mul", x, beta)), beta)


def elu(w: GraphWriter, node: Node) -> str:
    """``scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1))``."""
    args, dtype = arguments(node), spec(node).dtype
    x = w.name(args["self"])
    if args["input_scale"] == 1:
        result = w.emit("Elu", x, alpha=float(args["alpha"]))
    else:
        zero = w.constant(0.0, dtype)
        below = w.emit("Mul", w.emit("Min", x, zero), w.constant(args["input_scale"], dtype))
        result = w.emit("Add", w.emit("Max", x, zero), w.emit("Elu", below, alpha=float(args["alpha"])))
    return result if args["scale"] == 1 else w.emit("Mul", result, w.constant(args["scale"], dtype))


def leaky_relu(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("LeakyRelu", w.name(args["self"]), alpha=float(args["negative_slope"]))


def prelu(w: GraphWriter, node: Node) -> str:
    """One slope for each channel, which is dimension 1; ONNX wants it in broadcasting form."""
    args = arguments(node)
    slopes, rank = spec(args["weight"]).elements, len(spec(node).shape)
    shape = [slopes] if slopes == 1 or rank < 2 else [slopes, *[1] * (rank - 2)]
    return w.emit("PRelu", w.name(args["self"]), w.reshape(w.name(args["weight"]), shape))


WRITERS = {
    aten.relu.default: simple("Relu"),
    aten.sigmoid.default: simple("Sigmoid"),
    aten.tanh.default: simple("Tanh"),
    aten.hardswish.default: simple("HardSwish"),
    aten.clamp.default: clamp,
    aten.silu.default: silu,
    aten.hardsigmoid.default: hardsigmoid,
    aten.gelu.default: gelu,
    aten.mish.default: mish,
    aten.softplus.default: softplus,
    aten.elu.default: elu,
    aten.leaky_relu.default: leaky_relu,
    aten.prelu.default: prelu,
}
