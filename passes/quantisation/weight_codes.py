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


class CodedWeights:
    """The weights of a module that are read from codes; those of equal codebooks read one table of values."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self._tables: dict[tuple[float, ...], Node] = {}

    def read(self, layer: Node, coded: Coded) -> int:
        """Let a layer, behind all given before, read its weight from codes; return how many bytes are new."""
        weight, table = arguments(layer)["weight"], self._tables.get(coded.table)
        codes = self._add(weight, layer, "codes", coded.codes)
        values = table or self._add(weight, layer, "values", coded.values)
        self._tables[coded.table] = values
        scale = self._add(weight, layer, "scale", coded.scale)
        decoded = insert_call(layer, DECODE, codes, values, scale, coded.bits, list(coded.shape))
        set_argument(layer, "weight", decoded)
        erase_unread(self._module, [weight])
        return coded.own_bytes if table else coded.bytes

    def _add(self, weight: Node, layer: Node, what: str, value: torch.Tensor) -> Node:
        return add_tensor(self._module, layer, f"{weight.target}_{what}", value, trainable=False)
