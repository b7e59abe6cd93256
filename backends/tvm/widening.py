"""bfloat16 in memory: a conversion to float32 is part of the kernel that reads its result, not a kernel of its own."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import arguments, family, is_call, is_widening, spec
from lvc.compiler.ir.layers import FLOATING, factors, is_depthwise

aten = torch.ops.aten


def is_inlined(node: Node) -> bool:
    """Whether a conversion to float32 is made by all the kernels that read its result."""
    return is_from_bfloat16(node) and bool(node.users) and all(map(_reads_bfloat16, node.users))


def touches_bfloat16(node: Node) -> bool:
    """Whether a node reads or makes bfloat16."""
    return any(spec(other).dtype is torch.bfloat16 for other in (node, *node.all_input_nodes))


def refusal_of_bfloat16(node: Node) -> str | None:
    """Why a node that touches bfloat16 cannot be lowered; None if it converts or moves it."""
    if node.op == "placeholder" or (spec(node).dtype is torch.bfloat16 and node.graph.output_node() in node.users):
        return "bfloat16 has no NumPy type, so it can be no input or output"
    if is_call(node, aten.constant_pad_nd.default, aten.pad.default) and arguments(node).get("value"):
        return "padding of bfloat16 can be zeros only"
    if is_call(node, aten.to.dtype) or family(node) is Family.MOVEMENT:
        return None
    return "kernels compute with bfloat16 by way of float32 only"


def is_from_bfloat16(node: object) -> bool:
    return is_widening(node) and isinstance(node, Node) and spec(node.all_input_nodes[0]).dtype is torch.bfloat16


def multiplies_pairs(node: Node) -> bool:
    """Whether a contraction reads both its factors as bfloat16."""
    return is_call(node, *FLOATING) and all(map(is_from_bfloat16, factors(node)))


def _reads_bfloat16(user: Node) -> bool:
    if user.op == "output":
        return False
    return family(user) is not Family.CONTRACTION or is_depthwise(user) or multiplies_pairs(user)
