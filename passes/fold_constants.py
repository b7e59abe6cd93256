"""Evaluate calls whose operands are all stored tensors, and store the result in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import add_tensor, family, is_widening, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.coded_weights import is_coded
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.rewriting import rewrite
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.purity import is_pure


@dataclass(frozen=True, kw_only=True)
class FoldConstants(Pass):
    """Evaluate calls whose operands are all stored tensors, unless the result is much larger than they are."""

    name: ClassVar[str] = "fold-constants"
    effect: ClassVar[Effect] = Effect.ROUNDING  # another memory layout may choose another kernel

    limit: int = option(1 << 20, "bytes that a result may have even if it is larger than its operands together")

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise UsageError("limit must not be negative")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        rewrite(model.module, {}, outcome, otherwise=(self.fold,), once=True)
        return outcome

    def fold(self, module: GraphModule, node: Node) -> Node | str | None:
        """Store the result of a call on stored tensors; a sentence why it must stay, None if it is no such call."""
        if not has_stored_operands(node):
            return None
        return check(node, self.limit) or evaluate(module, node)


def has_stored_operands(node: Node) -> bool:
    return bool(node.all_input_nodes) and all(operand.op == "get_attr" for operand in node.all_input_nodes)


def check(node: Node, limit: int) -> str | None:
    """Why a call on stored tensors must stay in the graph; None if it can be evaluated now."""
    if family(node) is Family.QUANTISATION:
        return "it quantises a weight, which the backend must see"
    if is_coded(node):
        return "it reads a weight that is stored in few bits"
    if is_widening(node):
        return "it reads a shorter type, in which the tensor stays stored"
    if not is_pure(node):
        return "it runs in training mode, so its result is not fixed"
    given = sum(spec(operand).bytes for operand in node.all_input_nodes)
    result = spec(node).bytes
    if result > limit and result > given:
        return f"its result has {result} bytes and its operands have {given}; the limit is {limit}"
    return None


def evaluate(module: GraphModule, node: Node) -> Node:
    """Return a stored tensor with the result of a call."""
    with torch.no_grad():
        result = node.target(  # type: ignore[operator]
            *torch.fx.node.map_arg(node.args, lambda n: tensor(module, n)),
            **torch.fx.node.map_arg(node.kwargs, lambda n: tensor(module, n)),
        )
    return add_tensor(module, node, node.name, result.detach().clone(memory_format=torch.contiguous_format))
