"""Which stored tensors of an ONNX model training may change: weights and biases, and no other constants.

An ONNX file keeps both alike. What a layer multiplies by or adds is a weight; means of images, anchors of detectors
and tables of positions in pixels are constants, which training would quietly ruin.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, family, is_call, is_widening, spec, store, tensor
from lvc.compiler.ir.layers import CONTRACTIONS

_WEIGHTS = {
    **{entry.operator: (entry.weight, entry.bias) for entry in CONTRACTIONS.values() if not entry.is_integer},
    **dict.fromkeys(
        (aten.batch_norm.default, aten.layer_norm.default, aten.group_norm.default, aten.instance_norm.default),
        ("weight", "bias"),
    ),
    aten.prelu.default: ("weight",),
    aten.embedding.default: ("weight",),
}
"""The arguments of operators that training finds."""


def settle_trainable(module: GraphModule) -> None:
    """Store weights and biases as parameters, and all else as buffers, which training leaves alone."""
    for node in module.graph.nodes:
        value = tensor(module, node)
        if value is not None and isinstance(value, torch.nn.Parameter) != _can_train(node):
            store(module, str(node.target), value, trainable=_can_train(node))


def _can_train(node: Node) -> bool:
    return spec(node).dtype.is_floating_point and _is_weight(node)


def _is_weight(node: Node) -> bool:
    """Whether a layer reads a stored value as its weight, or adds it to its result as a bias, moved or quantised."""
    return any(_reads_as_weight(user, node) or (_passes_on(user, node) and _is_weight(user)) for user in node.users)


def _passes_on(user: Node, value: Node) -> bool:
    """Whether a call gives its first operand on, moved or rounded."""
    moves = family(user) in (Family.MOVEMENT, Family.QUANTISATION) or is_widening(user)
    return moves and user.all_input_nodes[0] is value


def _reads_as_weight(user: Node, value: Node) -> bool:
    if user.target in _WEIGHTS:
        given = arguments(user)
        return any(given[name] is value for name in _WEIGHTS[user.target] if name)
    if not is_call(user, aten.add.Tensor):
        return False
    others = [operand for operand in user.all_input_nodes if operand is not value]
    return sum(size > 1 for size in spec(value).shape) <= 1 and any(other.target in CONTRACTIONS for other in others)
