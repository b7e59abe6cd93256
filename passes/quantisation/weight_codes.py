"""Layers that read their weights from codes of few bits, by `lvc::decode`."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import add_tensor, arguments, erase_unread, insert_call, is_call, set_argument, tensor
from lvc.compiler.ir.operators.coded_weights import DECODE
from lvc.passes.quantisation.already import WHY_NOT
from lvc.passes.quantisation.rules import is_quantised
from lvc.passes.quantisation.weight_format import Coded


def refuse_codes(module: GraphModule, node: Node, group: int) -> str | None:
    """Why the weight of a layer, the value of a node, cannot be stored in few bits; None if it can."""
    weight = tensor(module, node)
    if weight is None:
        return WHY_NOT if is_quantised(node) or is_call(node, DECODE) else "its weight is computed in the graph"
    if weight.dtype is not torch.float32:
        return f"its weight is {weight.dtype}".replace("torch.", "")
    if len(node.users) > 1:
        return "its weight is shared"
    if not bool(weight.isfinite().all()):
        return "its weight holds NaN or infinity"
    if group and weight.shape[1] % group:
        return f"its {weight.shape[1]} input channels are not a multiple of group={group}"
    return None


def read_codes(module: GraphModule, layer: Node, coded: Coded) -> None:
    """Let a layer read its weight from codes."""
    weight = arguments(layer)["weight"]
    name = str(weight.target)
    stored = [
        add_tensor(module, layer, f"{name}_{what}", value, trainable=False)
        for what, value in (("codes", coded.codes), ("values", coded.values), ("scale", coded.scale))
    ]
    decoded = insert_call(layer, DECODE, *stored, coded.bits, list(coded.shape))
    set_argument(layer, "weight", decoded)
    erase_unread(module, [weight])
