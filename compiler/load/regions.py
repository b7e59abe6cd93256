"""Inlines the regions that `torch.export` cuts out of a graph where ``forward`` switches gradients or autocast.

Within ``torch.no_grad()`` or a disabled ``torch.autocast`` the same values are computed, so such a region is only a
part of the graph around it. Its form: a call of a higher-order operator, whose operands are some flags, a ``get_attr``
node of the region's own graph, and the values that the region reads; its results are read through ``getitem``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch._higher_order_ops.wrap import wrap_with_autocast, wrap_with_set_grad_enabled
from torch._ops import HigherOrderOperator
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.load.normalise.refusal import unknown_operators
from lvc.compiler.load.origins import user_line

_FLAGS = {wrap_with_set_grad_enabled: 1, wrap_with_autocast: 4}
"""How many operands stand before the region: ``enabled``, or ``device, dtype, enabled, cache``."""


def inline_regions(module: GraphModule) -> None:
    """Put regions into the graph around them, deep ones too; `CompileError` for those that compute something else."""
    unknown: dict[str, list[str]] = {}
    for node in list(module.graph.nodes):
        if isinstance(node.target, HigherOrderOperator):
            if node.target in _FLAGS:
                _inline(module, node)
            else:
                unknown.setdefault(str(node.target), []).append(_line(node) or node.name)
    if unknown:
        raise unknown_operators(unknown)


def _inline(module: GraphModule, call: Node) -> None:
    flags, (place, *operands) = call.args[: _FLAGS[call.target]], call.args[_FLAGS[call.target] :]  # type: ignore[index]
    assert isinstance(place, Node)
    region = module.get_submodule(str(place.target))
    assert isinstance(region, GraphModule)
    if call.target is wrap_with_autocast and flags[2] and flags[1] != torch.float32:
        raise CompileError(
            f"the model computes a part of itself in {str(flags[1]).removeprefix('torch.')}, under torch.autocast",
            where=next(filter(None, map(_line, region.graph.nodes)), ""),
            help="load the model without autocast, and say --precision bf16 where fewer bits are wanted",
        )
    inline_regions(region)
    with module.graph.inserting_before(call):
        results = _copy(region.graph, module.graph, operands)
    for part in list(call.users):
        assert part.target is operator.getitem
        part.replace_all_uses_with(results[part.args[1]])  # type: ignore[index]
        module.graph.erase_node(part)
    module.graph.erase_node(call)
    if not place.users:
        module.graph.erase_node(place)


def _copy(region: Graph, graph: Graph, operands: Sequence[object]) -> list[Node]:
    """Write a region's calls at the graph's insertion point, and return its results there."""
    copies = dict(zip(region.find_nodes(op="placeholder"), operands, strict=True))
    for node in region.nodes:
        if node.op == "call_function":
            copies[node] = graph.node_copy(node, lambda operand: copies[operand])
    return [copies[result] for result in region.output_node().args[0]]  # type: ignore[union-attr]


def _line(node: Node) -> str:
    return user_line(node.meta.get("stack_trace") or "")
