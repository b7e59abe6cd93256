"""Pools. A last window that only ceil mode keeps is written as padding: runtimes disagree on ceil mode."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec


def max_pool2d(w: GraphWriter, node: Node) -> str:
    """Maxima of windows; minus infinity of one in the padding alone, where runtimes give the lowest number."""
    args = arguments(node)
    window = _window(w, node, args)
    made = w.emit("MaxPool", w.name(args["self"]), dilations=list(args["dilation"]), **window)
    given, dtype = args | {"self": torch.zeros(1, 1, *spec(args["self"]).shape[2:])}, spec(node).dtype
    is_empty = aten.max_pool2d.default(**given).isinf()
    if not bool(is_empty.any()) or not dtype.is_floating_point:
        return made
    return w.emit("Where", w.constant(is_empty), w.constant(float("-inf"), dtype), made)


def avg_pool2d(w: GraphWriter, node: Node) -> str:
    """Average each window over the elements of the image and, if they count, of its padding; never those beyond."""
    args = arguments(node)
    window = _window(w, node, args)
    x, padding = w.name(args["self"]), list(args["padding"])
    if args["divisor_override"] is not None:
        mean = w.emit("AveragePool", x, count_include_pad=1, **window)
        area = window["kernel_shape"][0] * window["kernel_shape"][1]
        return w.emit("Mul", mean, w.constant(area / args["divisor_override"], spec(node).dtype))
    beyond = window["pads"][2:] != padding
    if args["count_include_pad"] and any(padding) and beyond:
        widths = w.constant([0, 0, *padding, 0, 0, *padding])
        x = w.emit("Pad", x, widths, w.constant(0.0, spec(node).dtype))
        rest = [after - own for after, own in zip(window["pads"][2:], padding, strict=True)]
        return w.emit("AveragePool", x, **window | {"pads": [0, 0, *rest]})
    return w.emit("AveragePool", x, count_include_pad=int(args["count_include_pad"] and not beyond), **window)


def _window(w: GraphWriter, node: Node, args: dict[str, Any]) -> dict[str, list[int]]:
    """Kernel, strides and pads of a pool, the pads after the image as large as its result's size needs."""
    if len(spec(node).shape) != 4:
        raise w.refuse("its input has no batch dimension")
    kernel, stride, padding = (list(args[name]) for name in ("kernel_size", "stride", "padding"))
    dilation = args.get("dilation", (1, 1))
    after = []
    for dim in range(2):
        size, result = spec(args["self"]).shape[2 + dim], spec(node).shape[2 + dim]
        reach = (result - 1) * stride[dim] + dilation[dim] * (kernel[dim] - 1) + 1
        after.append(max(padding[dim], reach - size - padding[dim]))
    return {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *after]}


def adaptive_avg_pool2d(w: GraphWriter, node: Node) -> str:
    """Windows of one size where the sizes divide, else a product with the matrices that average."""
    operand: Node = arguments(node)["self"]
    x, dtype = w.name(operand), spec(node).dtype
    sizes, results = spec(operand).shape[-2:], spec(node).shape[-2:]
    if results == (1, 1) and len(spec(node).shape) == 4:
        return w.emit("GlobalAveragePool", x)
    if all(size % result == 0 for size, result in zip(sizes, results, strict=True)) and len(spec(node).shape) == 4:
        kernel = [size // result for size, result in zip(sizes, results, strict=True)]
        return w.emit("AveragePool", x, kernel_shape=kernel, strides=kernel)
    rows = w.constant(_averages(sizes[0], results[0]), dtype)
    columns = w.constant(_averages(sizes[1], results[1]).T.contiguous(), dtype)
    return w.emit("MatMul", w.emit("MatMul", rows, x), columns)


def _averages(size: int, result: int) -> torch.Tensor:
    """``[result, size]``: row ``i`` averages elements ``floor(i*size/result)`` to ``ceil((i+1)*size/result)``."""
    matrix = torch.zeros(result, size, dtype=torch.float64)
    for row in range(result):
        start, end = row * size // result, -(-(row + 1) * size // result)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


WRITERS = {
    aten.max_pool2d.default: max_pool2d,
    aten.avg_pool2d.default: avg_pool2d,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
}
