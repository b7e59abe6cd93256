"""Layers, averages and products of dequantised operands: integer sums, rescaled.

With ``x = s*(q - z)`` and ``w[o] = t[o]*v[o]`` a layer is ``s*t[o] * (sum (q - z)*v[o] + b[o])``, where
``b[o] = round(bias[o] / (s*t[o]))``. An average over n places is ``s/n * sum (q - z)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.bounds import INT32, DataRange, product_bound, sum_bound
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, insert_call, spec, tensor
from lvc.compiler.ir.layers import INTEGER_LAYERS, channel_dim, contraction
from lvc.compiler.ir.operators import integer
from lvc.compiler.pipeline.rewriting import Rules
from lvc.passes.integer.quantisation_parameters import IntegerWeight, dequantised, describe, integer_weight


def lower_layer(module: GraphModule, node: Node) -> Node | str:
    """A convolution or linear layer with a quantised input and a quantised weight."""
    args = arguments(node)
    operand = dequantised(args["input"])
    if operand is None:
        return f"its input {describe(args['input'])} is not quantised"
    q, scale, zero_point = operand
    weight = integer_weight(module, args["weight"])
    if isinstance(weight, str):
        return weight
    bias = _integer_bias(module, args["bias"], scale * weight.scale, weight.q.shape[0])
    if isinstance(bias, str):
        return bias
    bound = sum_bound(weight.q, DataRange.of(spec(q).dtype, zero_point), bias)
    if bound > INT32:
        return f"its sums could reach {bound}, and 32 bits hold {INT32}"
    stored = [q, *_stored(module, node, weight, bias), zero_point]
    form = contraction(node).integer
    assert form is not None
    geometry = [args[argument.name] for argument in form._schema.arguments[len(stored) :]]
    sums = insert_call(node, form, *stored, *geometry, name=f"{node.name}_sums")
    return _rescaled(module, node, sums, scale * weight.scale, channel_dim(sums))


def _integer_bias(
    module: GraphModule, node: Node | None, step: torch.Tensor, channels: int
) -> torch.Tensor | str | None:
    """The bias in steps of the sums; a sentence if they do not fit 32 bits."""
    if node is None:
        return None
    bias = tensor(module, node)
    if bias is None:
        return "its bias is computed in the graph"
    steps = (bias.detach().double() / step).expand(channels).round()
    if not bool((steps.abs() <= INT32).all()):
        worst = int((steps.abs().nan_to_num(math.inf)).argmax())
        return f"its bias of channel {worst} has {float(steps[worst]):.3g} steps of the sums, and 32 bits hold {INT32}"
    return steps.to(torch.int32)


def _stored(
    module: GraphModule, node: Node, weight: IntegerWeight, bias: torch.Tensor | None
) -> tuple[Node, Node | None]:
    kept = add_tensor(module, node, f"{weight.name}_int8", weight.q)
    if bias is None or not bool(bias.any()):
        return kept, None
    return kept, add_tensor(module, node, f"{weight.name}_bias", bias)


def _rescaled(module: GraphModule, node: Node, sums: Node, scale: torch.Tensor, axis: int) -> Node:
    factor = add_tensor(module, node, f"{node.name}_scale", scale.float(), trainable=False)
    return insert_call(node, integer.rescale, sums, factor, axis)


def lower_average(module: GraphModule, node: Node) -> Node | str | None:
    """Average pooling whose windows all have as many places."""
    args = arguments(node)
    operand = dequantised(args["self"])
    if operand is None:
        return None
    if len(spec(node).shape) != 4:
        return "there are integer averages of batches of images only"
    kernel, stride, padding = args["kernel_size"], args["stride"], args["padding"]
    count = args["divisor_override"] or math.prod(kernel)
    if not args["divisor_override"] and not args["count_include_pad"] and any(padding):
        return "its windows at the border have fewer places"
    if args["ceil_mode"] and _rounds_up(node, kernel, stride, padding):
        return "its last windows reach out of the padded image"
    return _average(module, node, operand, (kernel, stride, padding), count)


def _rounds_up(node: Node, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> bool:
    sizes, outputs = spec(node.all_input_nodes[0]).shape[2:], spec(node).shape[2:]
    reach = [(out - 1) * s + k for out, s, k in zip(outputs, stride, kernel, strict=True)]
    return any(r > size + 2 * p for r, size, p in zip(reach, sizes, padding, strict=True))


def lower_adaptive_average(module: GraphModule, node: Node) -> Node | str | None:
    """Adaptive pooling into windows of equal size."""
    operand = dequantised(arguments(node)["self"])
    if operand is None:
        return None
    sizes, outputs = spec(operand[0]).shape[-2:], spec(node).shape[-2:]
    if len(spec(node).shape) != 4:
        return "there are integer averages of batches of images only"
    if any(size % out for size, out in zip(sizes, outputs, strict=True)):
        return "its windows differ in size"
    kernel = [size // out for size, out in zip(sizes, outputs, strict=True)]
    return _average(module, node, operand, (kernel, kernel, [0, 0]), math.prod(kernel))


def lower_mean(module: GraphModule, node: Node) -> Node | str | None:
    """The mean over height and width."""
    args = arguments(node)
    operand = dequantised(args["self"])
    if operand is None:
        return None
    shape = spec(operand[0]).shape
    if len(shape) != 4 or sorted(dim % 4 for dim in args["dim"] or ()) != [2, 3]:
        return "there are integer means over height and width only"
    kernel = list(shape[2:])
    return _average(module, node, operand, (kernel, kernel, [0, 0]), math.prod(kernel))


def _average(
    module: GraphModule,
    node: Node,
    operand: tuple[Node, float, int],
    windows: tuple[Sequence[int], Sequence[int], Sequence[int]],
    count: int,
) -> Node:
    q, scale, zero_point = operand
    sums = insert_call(node, integer.sum_pool2d, q, zero_point, *windows, name=f"{node.name}_sums")
    if spec(sums).shape != spec(node).shape:
        sums = insert_call(node, aten.reshape.default, sums, list(spec(node).shape))
    return _rescaled(module, node, sums, torch.tensor([scale / count], dtype=torch.float64), 1)


def lower_product(module: GraphModule, node: Node) -> Node | str | None:
    """The product of two dequantised tensors, of at most 255 * 255 steps: 32 bits hold it, and single precision too."""
    left, right = dequantised(node.args[0]), dequantised(node.args[1])
    if left is None or right is None:
        return None
    sums = insert_call(node, integer.mul, left[0], left[2], right[0], right[2], name=f"{node.name}_sums")
    return _rescaled(module, node, sums, torch.tensor([left[1] * right[1]], dtype=torch.float64), 0)


def lower_matmul(module: GraphModule, node: Node) -> Node | str:
    """Products of two stacks of dequantised matrices."""
    left, right = dequantised(node.args[0]), dequantised(node.args[1])
    if left is None or right is None:
        return f"its factor {describe(node.args[0 if left is None else 1])} is not quantised"
    (a, scale_a, zero_a), (b, scale_b, zero_b) = left, right
    if spec(a).shape[:-2] != spec(b).shape[:-2]:
        return "its factors are not stacks of as many matrices"
    ranges = (DataRange.of(spec(q).dtype, zero_point) for q, _, zero_point in (left, right))
    bound = product_bound(spec(a).shape[-1], *ranges)
    if bound > INT32:
        return f"its sums could reach {bound}, and 32 bits hold {INT32}"
    sums = insert_call(node, integer.matmul, a, b, zero_a, zero_b, name=f"{node.name}_sums")
    return _rescaled(module, node, sums, torch.tensor([scale_a * scale_b], dtype=torch.float64), 0)


RULES: Rules = {
    **dict.fromkeys(INTEGER_LAYERS, (lower_layer,)),
    aten.matmul.default: (lower_matmul,),
    aten.avg_pool2d.default: (lower_average,),
    aten.adaptive_avg_pool2d.default: (lower_adaptive_average,),
    aten.mean.dim: (lower_mean,),
    aten.mul.Tensor: (lower_product,),
}
