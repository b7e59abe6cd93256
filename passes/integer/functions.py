"""Functions of a layer's sums, computed in single precision by the layer's kernel before it rounds its result.

ATen's functions may differ in the last bit from one library to the next, and a rounding behind them by a step. So those
of `lvc.compiler.ir.operators.functions`, which are the same everywhere, take their place.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, insert_call, is_call
from lvc.compiler.ir.operators import functions, integer
from lvc.compiler.pipeline.rewriting import Rules

_EXACT = {
    aten.sigmoid.default: functions.sigmoid,
    aten.silu.default: functions.silu,
    aten.hardsigmoid.default: functions.hardsigmoid,
    aten.hardswish.default: functions.hardswish,
    aten.tanh.default: functions.tanh,
    aten.gelu.default: functions.gelu,
    aten.elu.default: functions.elu,
    aten.mish.default: functions.mish,
}
_KEPT = (aten.leaky_relu.default, aten.relu.default, aten.clamp.default, aten.mul.Tensor)


def is_function_of_sums(node: object) -> bool:
    """Whether a value is made of a layer's sums by functions that are the same everywhere, and stored numbers."""
    while is_call(node, *_EXACT.values(), *_KEPT):
        assert isinstance(node, Node)
        if any(operand.op != "get_attr" for operand in node.all_input_nodes if operand is not node.args[0]):
            return False
        node = node.args[0]
    return is_call(node, integer.rescale)


def make_exact(_: GraphModule, node: Node) -> Node | None:
    """A function of sums by its exact meaning."""
    if not is_function_of_sums(node.args[0]):
        return None
    return insert_call(node, _EXACT[node.target], *arguments(node).values())  # type: ignore[index]


RULES: Rules = dict.fromkeys(_EXACT, (make_exact,))
