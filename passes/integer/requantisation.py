"""A quantise takes what is before it into integers: sums, an addition, a concatenation, or any function of one value.

Rounding is monotone, so a relu or clamp before it only narrows the range of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import add_tensor, arguments, family, insert_call, is_call, op_name, spec, tensor
from lvc.compiler.ir.operators import integer
from lvc.compiler.pipeline.rewriting import Rules
from lvc.passes.integer.functions import is_function_of_sums
from lvc.passes.integer.movement import real_bounds
from lvc.passes.integer.quantisation_parameters import PerTensorParameters, dequantised, describe

_LONGEST_FUNCTION = 16


def requantise(module: GraphModule, node: Node) -> Node | str | None:
    """The integer form of what a quantise reads; None for an input of the model, or what a layer's kernel computes."""
    source, parameters = node.args[0], PerTensorParameters.of(node)
    assert isinstance(source, Node)
    if source.op != "call_function":
        return None
    if is_function_of_sums(source) and not is_call(_behind_limits(source, parameters)[0], integer.rescale):
        return None
    return (
        _requantised(module, node, source, parameters)
        or _tabulated(module, node, source, parameters)
        or _refusal(source)
    )


def _requantised(module: GraphModule, node: Node, source: Node, parameters: PerTensorParameters) -> Node | None:
    """What a result is made of, in integers of the result's scale and zero point; ``node`` is where to put it."""
    source, parameters = _behind_limits(source, parameters)
    if is_call(source, integer.rescale):
        return _from_sums(module, node, source, parameters)
    if is_call(source, integer.dequantise):
        return _unchanged(node, source, parameters)
    if is_call(source, aten.add.Tensor):
        return _addition(node, source, parameters)
    if is_call(source, aten.cat.default):
        return _concatenation(module, node, source, parameters)
    return None


def _behind_limits(source: Node, parameters: PerTensorParameters) -> tuple[Node, PerTensorParameters]:
    """Go back over relus and clamps; their bounds narrow the range."""
    while is_call(source, aten.relu.default, aten.clamp.default):
        least, most = real_bounds(source)
        low = parameters.low if least is None else max(parameters.low, parameters.nearest(least))
        high = parameters.high if most is None else min(parameters.high, parameters.nearest(most))
        parameters = replace(parameters, low=min(low, high), high=high)
        operand = source.args[0]
        assert isinstance(operand, Node)
        source = operand
    return source, parameters


def _from_sums(module: GraphModule, node: Node, source: Node, parameters: PerTensorParameters) -> Node:
    args = arguments(source)
    scale = tensor(module, args["scale"])
    assert scale is not None
    multiplier = (scale.double() / parameters.scale).float()
    stored = add_tensor(module, node, f"{source.name}_multiplier", multiplier, trainable=False)
    return insert_call(
        node,
        integer.requantise,
        args["sums"],
        stored,
        args["axis"],
        parameters.zero_point,
        parameters.low,
        parameters.high,
    )


def _unchanged(node: Node, source: Node, parameters: PerTensorParameters) -> Node | None:
    """The same integers, if they are of the same scale and zero point."""
    args = arguments(source)
    q = args["q"]
    if (args["scale"], args["zero_point"], spec(q).dtype) != (
        parameters.scale,
        parameters.zero_point,
        integer.data_type(parameters.low),
    ):
        return None
    limits = torch.iinfo(spec(q).dtype)
    if (parameters.low, parameters.high) == (limits.min, limits.max):
        return q  # type: ignore[no-any-return]
    return insert_call(node, aten.clamp.default, q, parameters.low, parameters.high)


def _addition(node: Node, source: Node, parameters: PerTensorParameters) -> Node | None:
    args = arguments(source)
    left, right = dequantised(args["self"]), dequantised(args["other"])
    if left is None or right is None:
        return None
    (a, scale_a, zero_a), (b, scale_b, zero_b) = left, right
    return insert_call(
        node,
        integer.add,
        a,
        integer.short_multiplier(scale_a / parameters.scale),
        zero_a,
        b,
        integer.short_multiplier(args["alpha"] * scale_b / parameters.scale),
        zero_b,
        parameters.zero_point,
        parameters.low,
        parameters.high,
    )


def _concatenation(module: GraphModule, node: Node, source: Node, parameters: PerTensorParameters) -> Node | None:
    """Every part requantised to the scale of the result, if each can be."""
    args = arguments(source)
    if not all(
        is_call(_behind_limits(part, parameters)[0], integer.rescale, integer.dequantise) for part in args["tensors"]
    ):
        return None
    parts = [
        _requantised(module, node, part, parameters) or _tabulated(module, node, part, parameters)
        for part in args["tensors"]
    ]
    return insert_call(node, aten.cat.default, parts, args["dim"])


def _tabulated(module: GraphModule, node: Node, source: Node, parameters: PerTensorParameters) -> Node | None:
    """An elementwise function of one quantised value, whatever it is, as a table of all its 256 results."""
    function = _function(module, source)
    if function is None:
        return None
    leaf, members = function
    args = arguments(leaf)
    q = args["q"]
    limits = torch.iinfo(spec(q).dtype)
    every = torch.arange(limits.min, limits.max + 1).to(spec(q).dtype)
    values: dict[Node, Any] = {leaf: integer.dequantise(every, args["scale"], args["zero_point"])}
    with torch.no_grad():
        for member in members:
            values[member] = _run(module, member, values)
    results = integer.quantise(
        values[source].nan_to_num(0.0), parameters.scale, parameters.zero_point, parameters.low, parameters.high
    )
    stored = add_tensor(module, node, f"{source.name}_table", results)
    return insert_call(node, integer.table, q, stored)


def _function(module: GraphModule, source: Node) -> tuple[Node, list[Node]] | None:
    """The one dequantise that a value depends on, and the elementwise calls between, in order."""
    leaves: set[Node] = set()
    members: set[Node] = set()
    pending = [source]
    while pending:
        node = pending.pop()
        if node in members or node in leaves:
            continue
        if is_call(node, integer.dequantise):
            leaves.add(node)
        elif _is_function(module, node) and spec(node).shape == spec(source).shape:
            members.add(node)
            pending.extend(operand for operand in node.all_input_nodes if operand.op != "get_attr")
        else:
            return None
    if len(leaves) != 1 or len(members) > _LONGEST_FUNCTION:
        return None
    (leaf,) = leaves
    if spec(leaf).shape != spec(source).shape:
        return None
    order = {node: place for place, node in enumerate(source.graph.nodes)}
    return leaf, sorted(members, key=order.__getitem__)


def _is_function(module: GraphModule, node: Node) -> bool:
    """Whether a call computes each element from those of the same place and single numbers."""
    if family(node) is not Family.ELEMENTWISE or not str(node.target).startswith("aten."):
        return False
    stored = (tensor(module, operand) for operand in node.all_input_nodes)
    return all(value is None or value.numel() == 1 for value in stored)


def _run(module: GraphModule, node: Node, values: Mapping[Node, Any]) -> Any:
    def value(operand: Node) -> Any:
        stored = tensor(module, operand)
        return values[operand] if stored is None else stored.detach().reshape(())

    return node.target(*torch.fx.map_arg(node.args, value), **torch.fx.map_arg(node.kwargs, value))  # type: ignore[operator]


def _refusal(source: Node) -> str:
    outside = [operand for operand in source.all_input_nodes if operand.op != "get_attr"]
    unknown = [operand for operand in outside if dequantised(operand) is None]
    if unknown and len(unknown) < len(outside):
        return f"'{source.name}' ({op_name(source)}) reads {describe(unknown[0])}, which is not quantised"
    return f"'{source.name}' before it has no integer form: {op_name(source)}"


RULES: Rules = {integer.quantise: (requantise,)}
