"""Fold each batch normalisation into the convolution or linear layer beside it.

In evaluation mode ``BN(y) = s*y + t`` for each channel, with ``s = gamma / sqrt(var + eps)`` and
``t = beta - s*mean``. So after a layer ``y = W*x + b``::

    BN(W*x + b) = (s*W)*x + (s*b + t)          s scales the output channels of W

and before one, where the layer sees nothing but normalised values::

    W*(s*x + t) + b = (W*s)*x + (W*t + b)      s scales the input channels of W

A layer that pads sees zeros where ``W*t`` would need ``t``, so before it only ``t = 0`` folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import (
    arguments,
    is_call,
    op_name,
    spec,
    store,
    tensor,
)
from lvc.compiler.ir.layers import LAYERS, channel_dim, contraction, factors, set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass
from lvc.compiler.pipeline.rewriting import Rules, rewrite
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.analysis.affine import (
    Affine,
    batch_norm_affine,
    channels_out,
    scale_inputs,
    scale_outputs,
    shift_response,
)


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm(Pass):
    """Fold each batch normalisation into the convolution or linear layer before it, or after it where that is exact."""

    name: ClassVar[str] = "fold-batch-norm"
    effect: ClassVar[Effect] = Effect.ROUNDING

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        rewrite(model.module, _RULES, outcome)
        return outcome


def fold(module: GraphModule, node: Node) -> Node | str:
    """Fold a normalisation into the layer before it or after it; a sentence why into neither."""
    affine = batch_norm_affine(module, node)
    if isinstance(affine, str):
        return affine
    before = check_before(node)
    if before is None:
        return fold_into_producer(module, node, affine)
    after = check_after(node, affine)
    return f"{before}; {after}" if after else fold_into_consumer(module, node, affine)


def check_before(node: Node) -> str | None:
    """Why a normalisation cannot fold into the layer before it; None if it can."""
    layer = node.args[0]
    if not isinstance(layer, Node) or not is_call(layer, *LAYERS):
        return f"its input comes from {_describe(layer)}, which has no weights to scale"
    if len(layer.users) > 1:
        return f"'{layer.name}' before it has {len(layer.users)} users that need its plain result"
    if channel_dim(layer) != 1:
        return f"the channels of '{layer.name}' before it are not those that it normalises"
    return _check_weights(layer, "before")


def check_after(node: Node, affine: Affine) -> str | None:
    """Why a normalisation cannot fold into the layer after it; None if it can."""
    if len(node.users) != 1:
        return f"its own result has {len(node.users)} users"
    (layer,) = node.users
    if not is_call(layer, *LAYERS) or factors(layer)[0] is not node:
        return f"its result goes to {_describe(layer)}, which has no weights to scale"
    if channel_dim(layer, node) != 1:
        return f"the channels of '{layer.name}' after it are not those that it normalises"
    if bool(affine.shift.any()):
        if not contraction(layer).is_matrix_product:
            return f"'{layer.name}' after it is a transposed convolution, whose borders would not see the shift"
        if any(arguments(layer).get("padding", ())):
            return f"'{layer.name}' after it pads with zeros, which the shift would move"
    return _check_weights(layer, "after")


def _check_weights(layer: Node, side: str) -> str | None:
    _, weight = factors(layer)
    if weight.op != "get_attr":
        return f"the weight of '{layer.name}' {side} it is computed in the graph"
    if len(weight.users) > 1:
        return f"the weight '{weight.target}' of '{layer.name}' {side} it is shared by {len(weight.users)} users"
    bias = arguments(layer)["bias"]
    if bias is not None and bias.op != "get_attr":
        return f"the bias of '{layer.name}' {side} it is computed in the graph"
    return None


def fold_into_producer(module: GraphModule, node: Node, affine: Affine) -> Node:
    layer = node.args[0]
    assert isinstance(layer, Node)
    weight, bias = _weights(module, layer)
    _set_weights(module, layer, scale_outputs(layer, weight, affine.scale), affine.scale * bias.double() + affine.shift)
    return layer


def fold_into_consumer(module: GraphModule, node: Node, affine: Affine) -> Node:
    (layer,) = node.users
    weight, bias = _weights(module, layer)
    if bool(affine.shift.any()):
        bias = bias.double() + shift_response(layer, weight.double(), affine.shift)
    _set_weights(module, layer, scale_inputs(layer, weight, affine.scale), bias)
    operand = node.args[0]
    assert isinstance(operand, Node)
    return operand


def _weights(module: GraphModule, layer: Node) -> tuple[torch.Tensor, torch.Tensor]:
    args = arguments(layer)
    weight, bias = tensor(module, args["weight"]), tensor(module, args["bias"])
    assert weight is not None
    return weight.detach(), torch.zeros(channels_out(layer)) if bias is None else bias.detach()


def _set_weights(module: GraphModule, layer: Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Store new weights; a bias that is missing is only added if it is not zero."""
    args = arguments(layer)
    store(module, str(args["weight"].target), weight.to(spec(args["weight"]).dtype))
    if args["bias"] is not None or bool(bias.any()):
        set_bias(module, layer, bias)


def _describe(node: object) -> str:
    if not isinstance(node, Node) or node.op == "output":
        return "the model's output"
    return f"'{node.name}' ({op_name(node)})" if node.op == "call_function" else f"the input '{node.name}'"


_RULES: Rules = {aten.batch_norm.default: (fold,)}
