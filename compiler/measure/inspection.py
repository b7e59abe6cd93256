"""What a model is made of: every operator call as a `Layer`."""

from __future__ import annotations

from torch.fx import Node

from lvc.compiler.ir.graph import behind_widening, calls, is_widening, op_name, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs
from lvc.compiler.measure.layers import Layer


def layers(model: Model) -> list[Layer]:
    """Return every operator call of a model, in order; reading a shorter type is a part of what reads it."""
    seen: set[Node] = set()
    return [_layer(node, seen) for node in calls(model.module.graph) if not is_widening(node)]


def _operands(node: Node) -> list[Node]:
    return [behind_widening(operand) for operand in node.all_input_nodes]


def _layer(node: Node, seen: set[Node]) -> Layer:
    stored = [n for n in _operands(node) if n.op == "get_attr" and n not in seen]
    seen.update(stored)
    return Layer(
        node=node.name,
        op=op_name(node),
        origin=origin(node),
        output=str(spec(node)),
        parameters=sum(spec(n).elements for n in stored),
        macs=macs(node),
        weight_bytes=sum(spec(n).bytes for n in stored),
        activation_bytes=spec(node).bytes,
        group=str(node.meta.get("group", "")),
    )
