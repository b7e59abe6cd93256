"""How much an operator computes: multiply-accumulates (MACs), from shapes alone.

Only the contractions are counted, as is the custom in the field: one MAC for each product that is summed, biases and
element-wise work left out. These are the numbers that papers and torchvision give as "FLOPs" or "GMACs".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler import integer
from lvc.compiler.dialect import aten
from lvc.compiler.graph import spec


def macs(node: Node) -> int:
    """Return the multiply-accumulates of one run of a node; 0 for anything but a contraction."""
    counter = _COUNTERS.get(node.target) if isinstance(node.target, OpOverload) else None
    return counter(node) if counter else 0


def _shape(node: Node, argument: int) -> tuple[int, ...]:
    operand = node.args[argument]
    assert isinstance(operand, Node)
    return spec(operand).shape


def _convolution(node: Node) -> int:
    """Each output element sums one window: input channels of its group times the kernel's area."""
    return spec(node).elements * math.prod(_shape(node, 1)[1:])


def _transposed_convolution(node: Node) -> int:
    """Each input element is spread over one window: output channels of its group times the kernel's area."""
    return math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])


def _linear(node: Node) -> int:
    return spec(node).elements * _shape(node, 1)[-1]


def _matmul(node: Node) -> int:
    return spec(node).elements * _shape(node, 0)[-1]


_COUNTERS: dict[OpOverload, Callable[[Node], int]] = {
    aten.conv2d.default: _convolution,
    aten.conv_transpose2d.input: _transposed_convolution,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    integer.conv2d: _convolution,
    integer.linear: _linear,
}
