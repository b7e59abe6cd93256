"""How much an operator computes: multiply-accumulates (MACs), from shapes alone.

Only the contractions are counted, as is the custom in the field: one MAC for each product that is summed, biases and
element-wise work left out. These are the numbers that papers and torchvision give as "FLOPs" or "GMACs".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch._ops import OpOverload
from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.operators import integer

Shape = tuple[int, ...]


def macs(node: Node, shapes: Mapping[str, Shape] | None = None) -> int:
    """Return the multiply-accumulates of one run of a node; 0 for anything but a contraction.

    ``shapes`` are those that its result and operands would have, by name, in place of those that they have.
    """
    counter = _COUNTERS.get(node.target) if isinstance(node.target, OpOverload) else None
    if counter is None:
        return 0
    left, right = node.args[:2]
    assert isinstance(left, Node)
    assert isinstance(right, Node)
    return counter(*(spec(n).shape if shapes is None else shapes[n.name] for n in (node, left, right)))


def total_macs(graph: Graph) -> int:
    """Return the multiply-accumulates of one run of a graph."""
    return sum(map(macs, calls(graph)))


def _convolution(result: Shape, operand: Shape, weight: Shape) -> int:
    """Each output element sums one window: input channels of its group times the kernel's area."""
    return math.prod(result) * math.prod(weight[1:])


def _transposed_convolution(result: Shape, operand: Shape, weight: Shape) -> int:
    """Each input element is spread over one window: output channels of its group times the kernel's area."""
    return math.prod(operand) * math.prod(weight[1:])


def _linear(result: Shape, operand: Shape, weight: Shape) -> int:
    return math.prod(result) * weight[-1]


def _matmul(result: Shape, left: Shape, right: Shape) -> int:
    return math.prod(result) * left[-1]


_COUNTERS: dict[OpOverload, Callable[[Shape, Shape, Shape], int]] = {
    aten.conv2d.default: _convolution,
    aten.conv_transpose2d.input: _transposed_convolution,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    integer.conv2d: _convolution,
    integer.linear: _linear,
    integer.matmul: _matmul,
}
