"""Operators that PyTorch code over other operators computes: the code is traced, and its calls take their place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.load.normalise.builder import Builder, Operand, Result, Rule, evaluate, operands_of
from lvc.compiler.load.normalise.trace import substitute


def composite(meaning: Callable[..., Any]) -> Rule:
    """A rule that writes the calls of ``meaning``, which takes the operator's arguments and is functional."""

    def rule(b: Builder, *args: Any, **kwargs: Any) -> Result:
        return written(b, meaning, *args, **kwargs)

    return rule


def written(b: Builder, meaning: Callable[..., Any], *args: Any, **kwargs: Any) -> Result:
    """Write what a function computes of operands, with every call in the dialect; `Unsupported` if one has no rule."""
    leaves, tree = tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Operand))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Operand)]

    def on_tensors(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        given, named = tree_unflatten(filled, tree)
        return meaning(*given, **named)

    operands = [cast("Operand", leaves[place]) for place in places]
    examples = [torch.empty(operand.shape, dtype=operand.dtype) for operand in operands]
    graph = make_fx(on_tensors, tracing_mode="fake", pre_dispatch=True)(*examples)
    return _write(b, graph, operands)


def _write(b: Builder, module: GraphModule, operands: list[Operand]) -> Result:
    values: dict[Node, Any] = {}
    waiting = iter(operands)
    for node in module.graph.nodes:
        if node.op == "call_function" and not node.users:
            continue
        args, kwargs = substitute(node, lambda read: values[read])
        if node.op == "placeholder":
            values[node] = next(waiting)
        elif node.op == "get_attr":
            values[node] = b.constant(getattr(module, str(node.target)))
        elif node.op == "output":
            (result,) = args
            return result if isinstance(result, Operand) else tuple(result)
        elif node.target is operator.getitem:
            values[node] = args[0][args[1]]
        else:
            values[node] = _spell(b, node.target, args, kwargs)
    raise AssertionError("a graph without an output")


def _spell(b: Builder, target: Any, args: Any, kwargs: Any) -> Result:
    from lvc.compiler.load.normalise.rules import rule_of

    assert isinstance(target, OpOverload)
    if target is not counted and all(operand.is_constant for operand in operands_of(args, kwargs)):
        return evaluate(b, target, args, kwargs)
    rule = rule_of(target)
    assert rule or target in OPS, f"the code of a composite calls {target}"
    return rule(b, *args, **kwargs) if rule else b.call(target, *args, **kwargs)
