"""The memory that the values of a model take while it runs."""

from __future__ import annotations

from torch.fx import Node

from lvc.compiler.ir.graph import behind_widening, is_widening, spec
from lvc.compiler.ir.model import Model


def peak_activation_bytes(model: Model) -> int:
    """Return the most bytes of inputs and results alive at once when the graph runs in order, nothing fused.

    A result lives from its call to its last reader; inputs live as long as they are read, outputs to the end.
    """
    kinds = ("placeholder", "call_function")
    order = [node for node in model.module.graph.nodes if node.op in kinds and not is_widening(node)]
    last_reader = {operand: place for place, node in enumerate(order) for operand in _operands(node)}
    last_reader |= dict.fromkeys(model.output_nodes, len(order))
    alive = peak = 0
    for place, node in enumerate(order):
        alive += spec(node).bytes
        peak = max(peak, alive)
        ended = {n for n in (node, *_operands(node)) if n.op != "get_attr" and last_reader.get(n, place) == place}
        alive -= sum(spec(n).bytes for n in ended)
    return peak


def activation_bytes(model: Model) -> int:
    """Return the bytes of all inputs and results: what is held where nothing is freed, as for derivatives."""
    kinds = ("placeholder", "call_function")
    return sum(spec(node).bytes for node in model.module.graph.nodes if node.op in kinds and not is_widening(node))


def _operands(node: Node) -> list[Node]:
    return [behind_widening(operand) for operand in node.all_input_nodes]
