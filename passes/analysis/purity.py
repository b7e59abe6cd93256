"""Does a call give the same result whenever it is run on the same operands?"""

from __future__ import annotations

from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call


def is_pure(node: Node) -> bool:
    """Whether a call neither draws random numbers nor updates statistics."""
    if is_call(node, aten.dropout.default):
        return not arguments(node)["train"]
    if is_call(node, aten.batch_norm.default):
        return not arguments(node)["training"]
    if is_call(node, aten.instance_norm.default):
        args = arguments(node)
        return not args["use_input_stats"] or args["running_mean"] is None
    return True
