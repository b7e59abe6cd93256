"""Room for biases: in integers a bias counts steps of the input's scale times the weight's, in 32 bits.

A channel that never answers, as pruning by weight decay leaves them, has weights near zero and a bias that is not. With
a scale for such weights alone its bias would have too many steps. So a scale is at least as large as lets the bias have
``2^29`` steps; weights that are lost by that add less than a ten-thousandth to the bias.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from lvc.compiler.dialect import aten
from lvc.compiler.graph import arguments, calls, set_argument, store, tensor
from lvc.passes.quantisation.grids import Grid
from lvc.passes.quantisation.rules import is_quantised

_MOST_STEPS = float(1 << 29)


def make_room_for_biases(module: GraphModule) -> None:
    """Raise the scales of weights whose biases would have too many steps."""
    for layer in calls(module.graph, aten.conv2d.default, aten.linear.default):
        args = arguments(layer)
        bias, source = tensor(module, args["bias"]), _grid_before(args["input"])
        if bias is None or source is None or not is_quantised(args["weight"]):
            continue
        grid = Grid.of(module, args["weight"])
        least = bias.detach().abs().double() / (Grid.of(module, source).scale.double() * _MOST_STEPS)
        if grid.axis is None:
            set_argument(args["weight"], "scale", max(float(grid.scale), float(least.max())))
        elif bool((least > grid.scale).any()):
            scale = grid.scale.double().maximum(least).float()
            store(module, str(arguments(args["weight"])["scale"].target), scale, trainable=False)


def _grid_before(node: Node) -> Node | None:
    """Return the fake quantisation, of a whole tensor, on whose grid a value lies."""
    while not is_quantised(node):
        if node.op != "call_function" or not node.all_input_nodes:
            return None
        node = node.all_input_nodes[0]
    return node if node.target is aten.fake_quantize_per_tensor_affine.default else None
