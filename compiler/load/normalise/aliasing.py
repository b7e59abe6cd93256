"""Which traced tensors are views of which others."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.load.normalise.builder import call_on_meta
from lvc.compiler.load.normalise.rules import functional_twin
from lvc.compiler.load.normalise.trace import Trace, substitute


def view_parents(trace: Trace) -> dict[Node, Node]:
    """Return for each view the tensor that it looks into; empty if the trace writes nothing in place.

    A part of a tuple is a view of the tuple, and the result of an in-place call one of what it wrote. Whether
    ``reshape`` or ``contiguous`` copies depends on strides, so the trace is run once, on tensors without data.
    """
    if not any(is_write(node) for node in trace.graph.nodes):
        return {}
    values: dict[Node, Any] = {}
    parents: dict[Node, Node] = {}
    for node in trace.graph.nodes:
        if node.op == "output":
            break
        values[node] = _run(trace, node, values)
        parent = _parent(node, values)
        if parent is not None:
            parents[node] = parent
    return parents


def is_write(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and functional_twin(node.target) is not None


def _run(trace: Trace, node: Node, values: dict[Node, Any]) -> Any:
    if node in trace.inputs:
        _, spec = trace.inputs[node]
        return torch.empty(spec.shape, dtype=spec.dtype, device="meta")
    if node in trace.stored:
        value = trace.stored[node].value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    args, kwargs = substitute(node, values.__getitem__)
    try:
        if node.target is operator.getitem:
            return args[0][args[1]]
        assert isinstance(node.target, OpOverload)
        return call_on_meta(node.target, args, kwargs)
    except Exception:  # what cannot run without data makes a tensor of its own; `rebuild` judges the call itself
        return None


def _parent(node: Node, values: dict[Node, Any]) -> Node | None:
    if node.target is operator.getitem or is_write(node):
        written = node.args[0]
        assert isinstance(written, Node)
        return written
    storages = _storages(values[node])
    return next((read for read in node.all_input_nodes if storages & _storages(values[read])), None)


def _storages(value: Any) -> set[int]:
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage()._cdata}
    return {part for item in value for part in _storages(item)} if isinstance(value, (tuple, list)) else set()
