"""The functions that only dress a model's outputs: softmax, log-softmax and sigmoid behind which values just move.

They keep the order of what they read and squeeze what is far from the middle: probabilities that are nearly 0 or 1 say
little about how far the scores in front of them moved. So models are judged in front of these functions.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import calls, family, replace
from lvc.compiler.ir.model import Model

_CLOSING = (aten.softmax.int, aten.log_softmax.int, aten.sigmoid.default)


def closing_functions(graph: Graph) -> tuple[Node, ...]:
    """Return the calls of such functions whose results reach outputs and nothing else, only moved on the way."""
    return tuple(node for node in calls(graph, *_CLOSING) if _only_moves(node))


def without_closing(model: Model) -> Model:
    """Return a copy, sharing its tensors, whose outputs are what the closing functions read."""
    twin = model.copy(share_tensors=True)
    for node in closing_functions(twin.module.graph):
        replace(node, node.all_input_nodes[0])
    twin.module.recompile()
    return twin


def _only_moves(node: Node) -> bool:
    """Whether every way from a value leads to an output through movements of this value alone."""
    return bool(node.users) and all(
        user.op == "output"
        or (family(user) is Family.MOVEMENT and user.all_input_nodes == [node] and _only_moves(user))
        for user in node.users
    )
