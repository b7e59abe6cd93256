"""Convolutions and matrix products."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec


def conv2d(w: GraphWriter, node: Node) -> str:
    return _convolution(w, "Conv", arguments(node))


def conv_transpose2d(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return _convolution(w, "ConvTranspose", args, output_padding=list(args["output_padding"]))


def _convolution(w: GraphWriter, kind: str, args: dict[str, Any], **more: Any) -> str:
    if len(spec(args["input"]).shape) != 4:
        raise w.refuse("its input has no batch dimension")
    operands = [args["input"], args["weight"], *([] if args["bias"] is None else [args["bias"]])]
    return w.emit(
        kind,
        *map(w.name, operands),
        kernel_shape=list(spec(args["weight"]).shape[2:]),
        strides=list(args["stride"]),
        pads=[*args["padding"], *args["padding"]],
        dilations=list(args["dilation"]),
        group=args["groups"],
        **more,
    )


def linear(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    bias = [] if args["bias"] is None else [w.name(args["bias"])]
    if len(spec(args["input"]).shape) == 2 and len(spec(args["weight"]).shape) == 2:
        return w.emit("Gemm", w.name(args["input"]), w.name(args["weight"]), *bias, transB=1)
    weight = w.emit("Transpose", w.name(args["weight"]))
    product = w.emit("MatMul", w.name(args["input"]), weight)
    return w.emit("Add", product, *bias) if bias else product


def matmul(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("MatMul", w.name(args["self"]), w.name(args["other"]))


WRITERS = {
    aten.conv2d.default: conv2d,
    aten.conv_transpose2d.input: conv_transpose2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
}
