"""What a model computes in integers, or simulates of it, as far as the backend asks before it builds."""

from __future__ import annotations

from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators import integer

_SEVEN_BITS = 64


def simulates_integers(model: Model) -> bool:
    """Whether quantised activations are simulated in floating point."""
    simulated = list(calls(model.module.graph, aten.fake_quantize_per_tensor_affine.default))
    is_lowered = any(node.target in integer.OPERATORS for node in calls(model.module.graph))
    return not is_lowered and any(node.all_input_nodes[0].op != "get_attr" for node in simulated)


def layers_of_wide_weights(model: Model) -> list[Node]:
    """The integer layers with weights of more than 7 bits, products of two of which exceed 16 bits."""
    found = []
    for node in calls(model.module.graph, integer.conv2d, integer.linear):
        weight = tensor(model.module, arguments(node)["weight"])
        if weight is not None and weight.shape[1] > 1 and bool((weight.int().abs() > _SEVEN_BITS).any()):
            found.append(node)
    return found
