"""In integers a bias counts steps of the sums: the scale of the input times that of the weight.

In 8 bits such a step is small. In few bits it is not, and a bias that was rounded as the simulation computes it already
is the bias that the integers have.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.layers import INTEGER_LAYERS
from lvc.passes.quantisation.operands import rewrite
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.quantisation.rules import LIMITS, ROLES, Role, is_quantised


def stepped_biases(graph: Graph) -> Iterator[tuple[Node, Node, Node]]:
    """Yield each layer with a stored bias that will compute in integers, with the fake quantisation whose integers it
    reads and that of its weight."""
    for layer in calls(graph, *INTEGER_LAYERS):
        args = arguments(layer)
        source, bias = _quantised_by(args["input"]), args["bias"]
        if source is not None and bias is not None and bias.op == "get_attr" and is_quantised(args["weight"]):
            yield layer, source, args["weight"]


def whole_steps(bias: torch.Tensor, source: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return a bias in whole steps, ``f32[O]``; ``source`` is the scale of the input and ``weight`` that of the weight,
    one or one for each output channel."""
    step = source.double() * weight.double()
    return ((bias.double() / step).round() * step).to(bias.dtype)


def round_biases(module: GraphModule) -> None:
    """Give each layer that will compute in integers the bias that it will have."""
    for layer, source, weight in stepped_biases(module.graph):
        scales = [QuantisationParameters.of(module, node).scale for node in (source, weight)]
        bias = tensor(module, arguments(layer)["bias"])
        assert bias is not None
        if len(scales[1].shape) == 0 or len(scales[1]) == len(bias):
            rounded = whole_steps(bias.detach(), *scales)
            rewrite(module, layer, "bias", lambda _, rounded=rounded: rounded)  # type: ignore[misc]


def _quantised_by(node: Node) -> Node | None:
    """The fake quantisation, with one scale, whose integers a value is made of; None if others stand between."""
    while not is_quantised(node):
        is_moved = node.op == "call_function" and (ROLES.get(node.target) is Role.PASS or node.target in LIMITS)  # type: ignore[call-overload]
        if not is_moved:
            return None
        node = node.all_input_nodes[0]
    return node if node.target is aten.fake_quantize_per_tensor_affine.default else None
