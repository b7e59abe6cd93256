"""How much an operator computes: multiply-accumulates (MACs), from shapes alone.

Only the contractions are counted, as is the custom in the field: one MAC for each product that is summed, biases and
element-wise work left out. These are the numbers that papers and torchvision give as "FLOPs" or "GMACs".
"""

from __future__ import annotations

from collections.abc import Mapping

from torch._ops import OpOverload
from torch.fx import Graph, Node

from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.layers import CONTRACTIONS, Shape, factors


def macs(node: Node, shapes: Mapping[str, Shape] | None = None) -> int:
    """Return the multiply-accumulates of one run of a node; 0 for anything but a contraction.

    ``shapes`` are those that its result and operands would have, by name, in place of those that they have.
    """
    entry = CONTRACTIONS.get(node.target) if isinstance(node.target, OpOverload) else None
    if entry is None:
        return 0
    return entry.count(*(spec(n).shape if shapes is None else shapes[n.name] for n in (node, *factors(node))))


def total_macs(graph: Graph) -> int:
    """Return the multiply-accumulates of one run of a graph."""
    return sum(map(macs, calls(graph)))
