"""Stored operands of layers, read and rewritten in double precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import add_tensor, arguments, set_argument, store, tensor


def stored_operand(module: GraphModule, layer: Node, name: str) -> torch.Tensor:
    """Return a stored operand of a layer, ``f64``."""
    value = tensor(module, arguments(layer)[name])
    assert value is not None
    return value.detach().double()


def rewrite(module: GraphModule, layer: Node, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change a stored operand of a layer; one that is read elsewhere too stays there as it is."""
    node = arguments(layer)[name]
    old = tensor(module, node)
    assert old is not None
    value, trainable = change(old.detach().double()).to(old.dtype), isinstance(old, torch.nn.Parameter)
    if list(node.users) == [layer] and list(arguments(layer).values()).count(node) == 1:
        store(module, str(node.target), value, trainable=trainable)
    else:
        set_argument(layer, name, add_tensor(module, layer, str(node.target), value, trainable=trainable))
