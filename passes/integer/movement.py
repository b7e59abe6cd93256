"""What chooses among elements or moves them does so with integers, and they are dequantised afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, insert_call, is_call, spec
from lvc.compiler.ir.operators import integer
from lvc.compiler.pipeline.rewriting import Rules
from lvc.passes.integer.quantisation_parameters import PerTensorParameters, dequantised


def move(module: GraphModule, node: Node) -> Node | None:
    """``f(dequantise(q)) = dequantise(f(q))``, and the same for sums with one scale."""
    before = node.args[0]
    if not is_call(before, integer.dequantise, integer.rescale):
        return None
    assert isinstance(before, Node)
    q, *rest = before.args
    if is_call(before, integer.rescale):
        if spec(rest[0]).elements != 1:  # type: ignore[arg-type]
            return None
        rest[1] = 0
    moved = insert_call(node, node.target, q, *node.args[1:], name=f"{node.name}_q", **node.kwargs)  # type: ignore[arg-type]
    return insert_call(node, before.target, moved, *rest)  # type: ignore[arg-type]


def enlarge(module: GraphModule, node: Node) -> Node | str | None:
    """Repetition of places; PyTorch has it for numbers without a sign."""
    operand = dequantised(node.args[0])
    if operand and spec(operand[0]).dtype is torch.int8:
        return "PyTorch does not enlarge images of signed integers"
    return move(module, node)


def limit(module: GraphModule, node: Node) -> Node | None:
    """``relu`` and ``clamp`` where there are integers for their bounds."""
    operand = dequantised(node.args[0])
    if operand is None:
        return None
    q, scale, zero_point = operand
    limits = torch.iinfo(spec(q).dtype)
    parameters = PerTensorParameters(scale, zero_point, limits.min, limits.max)
    bounds: list[int | None] = []
    for bound in real_bounds(node):
        exact = None if bound is None else parameters.exactly(bound)
        if bound is not None and exact is None:
            return None
        bounds.append(exact)
    limited = insert_call(node, aten.clamp.default, q, *bounds, name=f"{node.name}_q")
    return insert_call(node, integer.dequantise, limited, scale, zero_point)


def real_bounds(node: Node) -> tuple[float | None, float | None]:
    """Between which numbers a relu or clamp keeps its operand."""
    if node.target is aten.relu.default:
        return 0.0, None
    args: dict[str, Any] = arguments(node)
    return args["min"], args["max"]


def pad(module: GraphModule, node: Node) -> Node | str | None:
    """Padding with a number that there is an integer for."""
    args = arguments(node)
    operand = dequantised(args["self"])
    if operand is None:
        return None
    q, scale, zero_point = operand
    limits = torch.iinfo(spec(q).dtype)
    value = PerTensorParameters(scale, zero_point, limits.min, limits.max).exactly(args["value"])
    if value is None:
        return f"it pads with {args['value']}, which none of its integers stands for"
    padded = insert_call(node, aten.constant_pad_nd.default, q, args["pad"], value, name=f"{node.name}_q")
    return insert_call(node, integer.dequantise, padded, scale, zero_point)


def concatenate(module: GraphModule, node: Node) -> Node | None:
    """Operands of one scale and zero point."""
    args = arguments(node)
    operands = [dequantised(part) for part in args["tensors"]]
    parameters = {(part[1:], spec(part[0]).dtype) if part else None for part in operands}
    if len(parameters) != 1 or None in parameters:
        return None
    q = insert_call(node, aten.cat.default, [part[0] for part in operands if part], args["dim"], name=f"{node.name}_q")
    (_, scale, zero_point) = next(part for part in operands if part)
    return insert_call(node, integer.dequantise, q, scale, zero_point)


RULES: Rules = {
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.permute.default,
            aten.expand.default,
            aten.repeat.default,
            aten.slice.Tensor,
            aten.roll.default,
            aten.flip.default,
            aten.index_select.default,
            aten.pixel_shuffle.default,
            aten.pixel_unshuffle.default,
            aten.max_pool2d.default,
        ),
        (move,),
    ),
    aten.upsample_nearest2d.vec: (enlarge,),
    aten.relu.default: (limit,),
    aten.clamp.default: (limit,),
    aten.constant_pad_nd.default: (pad,),
    aten.cat.default: (concatenate,),
}
