"""What the PyTorch importer can spell, for converters: its rules and composites write through a converter's call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils._pytree import tree_map

from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.normalise import builder
from lvc.compiler.load.normalise.composite import composite
from lvc.compiler.load.onnx_importer.call import Call
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value


class _Bridge(builder.Builder):
    """The builder that rules write to; every call becomes one of the ONNX node."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.onnx = call
        self.origin = call.origin

    def call(self, overload: OpOverload, *args: Any, **kwargs: Any) -> builder.Operand:
        args, kwargs = tree_map(_value, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, builder.Operand))
        return _operand(self.onnx.emit(overload, *args, **kwargs))


def by_rule(call: Call, rule: builder.Rule, *args: Any, **kwargs: Any) -> Any:
    """What a rule writes for operands of an ONNX node: a value, or several."""
    args, kwargs = tree_map(_operand_or_number, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Value))
    try:
        result = rule(_Bridge(call), *args, **kwargs)
    except builder.Unsupported as refusal:
        raise Unsupported(str(refusal).removeprefix("it ")) from refusal
    return _value(result) if isinstance(result, builder.Operand) else [_value(part) for part in result]


def by_meaning(call: Call, meaning: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What PyTorch code computes of operands of an ONNX node, written in the dialect."""
    return by_rule(call, composite(meaning), *args, **kwargs)


def _operand_or_number(leaf: Any) -> Any:
    return _operand(leaf) if isinstance(leaf, Value) else leaf


def _operand(value: Value) -> builder.Operand:
    if isinstance(value, Node):
        return builder.Operand(spec(value), value)
    return builder.Operand(TensorSpec.of(value.tensor), None, value.tensor, value.name, value.trainable)


def _value(leaf: Any) -> Any:
    if not isinstance(leaf, builder.Operand):
        return leaf
    if leaf.node is not None:
        return leaf.node
    assert isinstance(leaf.value, torch.Tensor)
    return Constant(leaf.value, leaf.name, leaf.trainable)
