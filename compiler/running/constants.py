"""What depends on stored tensors alone, and is the same for all data."""

from __future__ import annotations

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.ir.graph import tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.running.compute import compute


def constant_values(model: Model) -> dict[Node, torch.Tensor]:
    """Return the value of each node that depends on stored tensors alone."""
    values: dict[Node, torch.Tensor] = {}
    with torch.inference_mode():
        for node in constants(model.module.graph):
            stored = tensor(model.module, node)
            values[node] = stored.detach() if stored is not None else compute(node, values)
    return values


def constant_value(module: GraphModule, node: Node) -> torch.Tensor:
    """Return a value that depends on stored tensors alone, as they are now."""
    values: dict[Node, torch.Tensor] = {}
    waiting = [node]
    with torch.inference_mode():
        while waiting:
            stored = tensor(module, waiting[-1])
            unknown = [operand for operand in waiting[-1].all_input_nodes if operand not in values]
            if unknown:
                waiting += unknown
            else:
                last = waiting.pop()
                values[last] = stored.detach() if stored is not None else compute(last, values)
    return values[node]


def constants(graph: Graph) -> dict[Node, None]:
    """Return the nodes whose values depend on stored tensors alone, in graph order."""
    found: dict[Node, None] = {}
    for node in graph.nodes:
        operands = node.all_input_nodes
        computed = node.op == "call_function" and operands and all(operand in found for operand in operands)
        if node.op == "get_attr" or computed:
            found[node] = None
    return found
