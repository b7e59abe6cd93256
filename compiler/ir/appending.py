"""One model behind another: what the second computes of the first one's outputs takes their place."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from lvc.compiler.ir.graph import add_tensor, erase_dead, tensor
from lvc.compiler.ir.model import Model


def append(model: Model, tail: Model) -> None:
    """Let a model give what ``tail`` makes of its outputs, whose inputs they fit in order; it shares no tensor with it.

    Outputs, their names and counts are those of ``tail`` from here on.
    """
    output = model.module.graph.output_node()
    made: dict[Node, Node] = dict(zip(_inputs(tail), model.output_nodes, strict=True))
    for node in tail.module.graph.nodes:
        if node.op == "get_attr":
            value = tensor(tail.module, node)
            assert value is not None
            made[node] = add_tensor(model.module, output, str(node.target), value.clone(), trainable=False)
        elif node.op == "call_function":
            with model.module.graph.inserting_before(output):
                made[node] = model.module.graph.node_copy(node, made.__getitem__)
    output.args = (tuple(made[node] for node in tail.output_nodes),)
    model.output_names, model.counts = tail.output_names, dict(tail.counts)
    erase_dead(model.module)
    model.module.recompile()


def _inputs(model: Model) -> Sequence[Node]:
    return [node for node in model.module.graph.nodes if node.op == "placeholder"]
