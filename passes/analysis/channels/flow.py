"""Labels sent through a graph: for every dimension of every value, which atom each of its indices belongs to.

The dimensions of stored tensors bring fresh atoms; the input's dimensions are fixed. A rule, one for each operator,
takes the labels of the operands to those of the result and unites the atoms that must go together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.graph import op_name, spec
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.channels.partition import Partition

Dim = torch.Tensor | str
"""Atoms of the indices of one dimension, ``i64[n]``; or the reason why the dimension stays as it is."""

Labels = tuple[Dim, ...]
Rule = Callable[["Flow", Node], Sequence[Dim]]

RULES: dict[OpOverload, Rule] = {}
"""What each operator of the dialect does to labels; filled by the modules of this folder, see `propagate`."""


def rule(*overloads: OpOverload) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(overloads, function))
        return function

    return register


class Flow:
    """The labels of a graph under construction; with ``heads``, those of attention go as a whole."""

    def __init__(self, heads: bool = False) -> None:
        self.heads = heads
        self.partition = Partition()
        self.labels: dict[Node, Labels] = {}

    def of(self, operand: object) -> Labels:
        """Return the labels of an operand."""
        assert isinstance(operand, Node)
        return self.labels[operand]

    def fix(self, dim: Dim, reason: str) -> str:
        if isinstance(dim, str):
            return dim
        self.partition.fix(dim, reason)
        return reason

    def join(self, *dims: Dim) -> Dim:
        """Unite dimensions index by index; if one of them stays, all stay."""
        if any(isinstance(dim, str) for dim in dims):
            return self.fix_all(*dims)
        first, *others = (dim for dim in dims if not isinstance(dim, str))
        for other in others:
            self.partition.unite(first, other)
        return first

    def fix_all(self, *dims: Dim) -> str:
        """Let dimensions stay because one of them stays."""
        reason = next(dim for dim in dims if isinstance(dim, str))
        for dim in dims:
            self.fix(dim, reason)
        return reason

    def tie(self, rows: torch.Tensor) -> torch.Tensor:
        """Make one class of each row, ``i64[n, m]``; return an atom of each, ``i64[n]``."""
        self.partition.unite(rows[:, :1], rows)
        return rows[:, 0]


def propagate(model: Model, heads: bool = False) -> Flow:
    """Send labels through a model, from its inputs and stored tensors to its outputs."""
    from lvc.passes.analysis.channels import layers, movement, normalisation, pointwise  # noqa: F401  they fill RULES

    flow = Flow(heads)
    for node in model.module.graph.nodes:
        if node.op == "placeholder":
            flow.labels[node] = (f"the input '{node.target}' has them",) * len(spec(node).shape)
        elif node.op == "get_attr":
            flow.labels[node] = tuple(flow.partition.fresh(size) for size in spec(node).shape)
        elif node.op == "call_function":
            flow.labels[node] = _apply(flow, node)
    for name, node in zip(model.output_names, model.output_nodes, strict=True):
        for dim in flow.of(node):
            flow.fix(dim, f"the output '{name}' has them")
    _fix_whole_dimensions(flow)
    return flow


def _apply(flow: Flow, node: Node) -> Labels:
    function = RULES.get(node.target, _stay) if isinstance(node.target, OpOverload) else _stay
    labels = tuple(function(flow, node))
    sizes = spec(node).shape
    assert len(labels) == len(sizes), f"{op_name(node)} has {len(sizes)} dimensions, and {len(labels)} were labelled"
    for dim, size in zip(labels, sizes, strict=True):
        assert isinstance(dim, str) or len(dim) == size, f"{op_name(node)}: {len(dim)} labels for a size of {size}"
    return labels


def _stay(flow: Flow, node: Node) -> Sequence[Dim]:
    """An operator without a rule keeps all that it reads."""
    reason = f"they go through {op_name(node)}"
    for operand in node.all_input_nodes:
        for dim in flow.of(operand):
            flow.fix(dim, reason)
    return [reason] * len(spec(node).shape)


def _fix_whole_dimensions(flow: Flow) -> None:
    """A class that fills a dimension cannot go: nothing would be left of it."""
    for labels in flow.labels.values():
        for dim in labels:
            if not isinstance(dim, str) and flow.partition.classes(dim) == 1:
                flow.fix(dim, "there is only one" if len(dim) == 1 else "they all hang together")
