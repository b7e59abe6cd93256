"""Which fake quantisations have the same parameters because integers pass from one to the other as they are.

Values that meet in a concatenation are moved as integers, and so are those that only a pooling or a reshape stands
between: as long as both sides have one scale and one zero point. Who changes the parameters of one changes all.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, is_call
from lvc.passes.quantisation.rules import LIMITS, ROLES, Role

_ONE_SCALE = aten.fake_quantize_per_tensor_affine.default


def shared_parameters(graph: Graph) -> dict[Node, Node]:
    """Return for each fake quantisation with one scale one of those that it shares its parameters with, the same for
    all of them; itself if it shares them with none."""
    roots: dict[Node, Node] = {}
    sources: dict[Node, list[Node]] = {}
    for node in calls(graph):
        found = [source for operand in node.all_input_nodes for source in sources.get(operand, ())]
        if is_call(node, _ONE_SCALE):
            roots[node] = node
            _join(roots, [*found, node])
            sources[node] = [node]
        elif found and (ROLES.get(node.target) is Role.PASS or node.target in LIMITS):  # type: ignore[call-overload]
            _join(roots, found)
            sources[node] = found
    return roots


def _join(roots: dict[Node, Node], nodes: list[Node]) -> None:
    """Let all nodes of the same parameters be one set."""
    sets: dict[tuple[object, ...], Node] = {}
    for node in nodes:
        kept = sets.setdefault(_parameters(node), roots[node])
        joined = roots[node]
        roots.update({member: kept for member, root in roots.items() if root is joined})


def _parameters(node: Node) -> tuple[object, ...]:
    return tuple(arguments(node).values())[1:]
