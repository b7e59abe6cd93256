"""What kernels do to an operand as they read it, so that it needs no kernel of its own."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.backends.tvm import widening
from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.compiler.ir.operators.coded_weights import is_coded

aten = torch.ops.aten

Edges = tuple[int, int, int, int]  # top, left, bottom, right


def stored(node: Node) -> Node:
    """The value in memory behind an operand of a kernel."""
    return node.all_input_nodes[0] if is_inlined(node) else node


def is_inlined(node: Node) -> bool:
    """Whether all the kernels that read a node's result compute it on the way."""
    return widening.is_inlined(node) or zero_edges(node) is not None or is_coded(node)


def zero_edges(node: Node) -> Edges | None:
    """The zeros that a node adds to images for convolutions alone, whose kernels can pad each side differently."""
    if not is_call(node, aten.constant_pad_nd.default) or len(spec(node).shape) != 4:
        return None
    given = arguments(node)
    pad: list[int] = [*given["pad"], 0, 0]
    left, right, top, bottom = pad[:4]
    if given["value"] or any(pad[4:]) or min(pad) < 0:
        return None
    if spec(node).dtype is not torch.float32 or widening.is_inlined(given["self"]):
        return None
    return (top, left, bottom, right) if node.users and all(_pads(user, node) for user in node.users) else None


def _pads(user: Node, image: Node) -> bool:
    """Whether a kernel can pad this operand."""
    if not is_call(user, aten.conv2d.default):
        return False
    given = arguments(user)
    weight = given["weight"]
    return given["input"] is image and (weight.op == "get_attr" or is_coded(weight))
