"""Merge calls that compute the same result, and stored tensors that hold the same bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import arguments, drop_unread_tensors, replace, spec, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.serialise import tensor_bytes
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.purity import is_pure

SKETCHED = 256  # elements that tell most tensors apart


@dataclass(frozen=True, kw_only=True)
class MergeDuplicates(Pass):
    """Merge calls of one operator on the same arguments, and stored tensors that hold the same bytes.

    The first one in graph order stays. Parameters and buffers are kept apart, since training treats them differently.
    """

    name: ClassVar[str] = "merge-duplicates"
    effect: ClassVar[Effect] = Effect.EXACT

    tensors: bool = option(True, "merge equal stored tensors too, which ties them together for later training")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        first: dict[Hashable, Node] = {}
        nodes = list(model.module.graph.nodes)
        seen = Counter(tensor_sketch(model.module, node) for node in nodes if node.op == "get_attr")
        for node in nodes:
            key = self.key(model.module, node, seen)
            if key is None:
                continue
            kept = first.setdefault(key, node)
            if kept is not node:
                outcome.change(node)
                replace(node, kept)
        drop_unread_tensors(model.module)
        return outcome

    def key(self, module: GraphModule, node: Node, seen: Mapping[Hashable, int]) -> Hashable | None:
        """What two nodes must share to be merged; None for a node that never is. ``seen`` counts tensors that look
        alike: of those alone all bytes are compared."""
        if node.op == "get_attr" and self.tensors:
            return tensor_key(module, node) if seen[tensor_sketch(module, node)] > 1 else None
        return call_key(node) if node.op == "call_function" else None


def call_key(node: Node) -> Hashable | None:
    """The operator and its arguments, defaults filled in; None if two equal calls can differ."""
    if not is_pure(node):
        return None
    return (node.target, tuple((name, _frozen(value)) for name, value in sorted(arguments(node).items())))


def _frozen(value: Any) -> Hashable:
    """A hashable form of an argument that tells 1, 1.0 and True apart."""
    if isinstance(value, Node):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return (type(value).__name__, repr(value))


def tensor_sketch(module: GraphModule, node: Node) -> Hashable:
    """What equal tensors share and few others do: the kind, and the first elements."""
    value = tensor(module, node)
    assert value is not None
    first = value.detach().reshape(-1)[:SKETCHED]
    return (spec(node), isinstance(value, torch.nn.Parameter), tensor_bytes(first))


def tensor_key(module: GraphModule, node: Node) -> Hashable:
    value = tensor(module, node)
    assert value is not None
    digest = hashlib.sha256(tensor_bytes(value)).hexdigest()
    return (spec(node), isinstance(value, torch.nn.Parameter), digest)
