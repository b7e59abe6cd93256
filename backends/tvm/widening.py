"""Short floating-point types in memory: a conversion to float32 is part of the kernel that reads its result, not a
kernel of its own."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import arguments, family, is_call, is_widening, spec
from lvc.compiler.ir.layers import FLOATING, factors, is_depthwise

aten = torch.ops.aten

SHORT = (torch.bfloat16, torch.float16)


def is_inlined(node: Node) -> bool:
    """Whether a conversion to float32 is made by all the kernels that read its result."""
    return is_from_short(node) and bool(node.users) and all(map(_reads_short, node.users))


def touches_short(node: Node) -> bool:
    """Whether a node reads or makes a short type."""
    return any(spec(other).dtype in SHORT for other in (node, *node.all_input_nodes))


def refusal_of_short(node: Node) -> str | None:
    """Why a node that touches a short type cannot be lowered; None if it converts or moves it."""
    if node.op == "placeholder" or (spec(node).dtype in SHORT and node.graph.output_node() in node.users):
        return f"{_name(spec(node).dtype)} is a type of what kernels hand on, not of inputs and outputs"
    if is_call(node, aten.constant_pad_nd.default, aten.pad.default) and arguments(node).get("value"):
        return "padding of short types can be zeros only"
    if is_call(node, aten.to.dtype) or family(node) is Family.MOVEMENT:
        return None
    return "kernels compute with short types by way of float32 only"


def is_from_short(node: object) -> bool:
    return is_widening(node) and isinstance(node, Node) and spec(node.all_input_nodes[0]).dtype in SHORT


def multiplied_dtype(node: Node) -> torch.dtype | None:
    """The short type as which a contraction reads both its factors; None if there is none."""
    if not is_call(node, *FLOATING) or not all(map(is_from_short, factors(node))):
        return None
    dtypes = {spec(factor.all_input_nodes[0]).dtype for factor in factors(node)}
    return dtypes.pop() if len(dtypes) == 1 else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reads_short(user: Node) -> bool:
    if user.op == "output":
        return False
    return family(user) is not Family.CONTRACTION or is_depthwise(user) or multiplied_dtype(user) is not None
