"""Biases must not overflow: in integers a bias counts steps of the input's scale times the weight's, in 32 bits.

A channel that never answers, as pruning by weight decay leaves them, has weights near zero and a bias that is not. With
a scale for such weights alone its bias would have too many steps. So a scale is at least as large as lets the bias have
``2^29`` steps; weights that are lost by that add less than a ten-thousandth to the bias.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, set_argument, store, tensor
from lvc.compiler.ir.layers import INTEGER_LAYERS
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.quantisation.rules import is_quantised

_MOST_STEPS = float(1 << 29)


def prevent_bias_overflow(module: GraphModule) -> None:
    """Raise the scales of weights whose biases would have too many steps."""
    for layer in calls(module.graph, *INTEGER_LAYERS):
        args = arguments(layer)
        bias, source = tensor(module, args["bias"]), _quantised_by(args["input"])
        if bias is None or source is None or not is_quantised(args["weight"]):
            continue
        least = bias.detach().abs().double() / (QuantisationParameters.of(module, source).scale.double() * _MOST_STEPS)
        scale = arguments(args["weight"])["scale"]
        stored = tensor(module, scale)
        if stored is None:
            set_argument(args["weight"], "scale", max(scale, float(least.max())))
            continue
        least = least.reshape(-1, *[1] * (stored.ndim - 1))
        if bool((least > stored).any()):
            store(module, str(scale.target), stored.double().maximum(least).float(), trainable=False)


def _quantised_by(node: Node) -> Node | None:
    """Return the fake quantisation, of a whole tensor, whose integers a value is made of."""
    while not is_quantised(node):
        if node.op != "call_function" or not node.all_input_nodes:
            return None
        node = node.all_input_nodes[0]
    return node if node.target is aten.fake_quantize_per_tensor_affine.default else None
