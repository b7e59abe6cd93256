"""Operators that exporters spell out in parts, put together again: SiLU, hard swish, GELU, Mish, layer norm.

The parts stay in the graph where something else reads them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import OPS
from lvc.compiler.ir.graph import calls, infer_spec, is_call, origin, replace, spec

aten = torch.ops.aten


def recompose(module: GraphModule) -> None:
    """Replace every spelt-out operator by the one it stands for."""
    for node in calls(module.graph):
        made = _activation(node) or _hard_sigmoid(node) or _layer_norm(node)
        if made is not None:
            replace(node, made)
    for node in calls(module.graph, aten.add.Tensor):
        made = _affine(node)
        if made is not None:
            replace(node, made)


def _instead(node: Node, overload: OpOverload, *args: Any) -> Node:
    """Insert the call that stands for a node's parts, named after the node."""
    with node.graph.inserting_before(node):
        name = f"{node.name}_{OPS[overload].name}"
        made = node.graph.create_node("call_function", overload, args, name=name)
    made.meta.update(origin=origin(node), spec=infer_spec(made))
    return made


def _activation(node: Node) -> Node | None:
    """x gate(x), a number perhaps among the factors."""
    if not is_call(node, aten.mul.Tensor, aten.div.Tensor):
        return None
    factor, parts = _factors(node)
    if len(parts) != 2:
        return None
    for x, gate in (parts, parts[::-1]):
        if spec(x) != spec(node):
            continue
        if factor == 1.0 and is_call(gate, aten.sigmoid.default) and gate.args[0] is x:
            return _instead(node, aten.silu.default, x)
        if factor == 1.0 and is_call(gate, aten.hardsigmoid.default) and gate.args[0] is x:
            return _instead(node, aten.hardswish.default, x)
        if _is_close(factor, 1 / 6) and _is_relu6_of_shifted(gate, x):
            return _instead(node, aten.hardswish.default, x)
        if factor == 1.0 and _is_mish_gate(gate, x):
            return _instead(node, aten.mish.default, x)
        if factor == 0.5 and _is_error_gate(gate, x):
            return _instead(node, aten.gelu.default, x)
    return None


def _factors(node: Node, is_whole: bool = True) -> tuple[float, list[Node]]:
    """Split a product into one number and the nodes that are multiplied, through parts that only it reads."""
    if not is_whole and len(node.users) > 1:
        return 1.0, [node]
    if (number := _by_number(node)) is not None:
        inner, parts = _factors(_node(node.args[0]), False)
        return number * inner, parts
    if not is_call(node, aten.mul.Tensor):
        return 1.0, [node]
    (left, a), (right, b) = (_factors(_node(arg), False) for arg in node.args)
    return left * right, a + b


def _by_number(node: Node) -> float | None:
    """Return the number by which a node multiplies or divides its operand."""
    if not is_call(node, aten.mul.Tensor, aten.div.Tensor) or not isinstance(node.args[1], (int, float)):
        return None
    number = float(node.args[1])
    if is_call(node, aten.mul.Tensor):
        return number
    return 1.0 / number if number else None


def _node(value: object) -> Node:
    assert isinstance(value, Node)
    return value


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5)


def _is_relu6_of_shifted(gate: Node, x: Node) -> bool:
    """min(max(x + 3, 0), 6)."""
    if not is_call(gate, aten.clamp.default) or tuple(gate.args[1:]) != (0.0, 6.0):
        return False
    shifted = gate.args[0]
    return is_call(shifted, aten.add.Tensor) and _node(shifted).args == (x, 3.0)


def _is_mish_gate(gate: Node, x: Node) -> bool:
    """tanh(softplus(x))."""
    inner = gate.args[0] if is_call(gate, aten.tanh.default) else None
    return is_call(inner, aten.softplus.default) and _node(inner).args[0] is x


def _is_error_gate(gate: Node, x: Node) -> bool:
    """1 + erf(x / sqrt 2)."""
    if not is_call(gate, aten.add.Tensor) or gate.args[1] != 1.0 or not is_call(gate.args[0], aten.erf.default):
        return False
    scaled = _node(gate.args[0]).args[0]
    number = _by_number(scaled) if isinstance(scaled, Node) else None
    return number is not None and _is_close(number, math.sqrt(0.5)) and _node(scaled).args[0] is x


def _hard_sigmoid(node: Node) -> Node | None:
    """min(max(x + 3, 0), 6) / 6."""
    number = _by_number(node)
    gate = node.args[0] if node.args else None
    if number is None or not _is_close(number, 1 / 6) or not is_call(gate, aten.clamp.default):
        return None
    shifted = _node(gate).args[0]
    x = shifted.args[0] if isinstance(shifted, Node) and shifted.args else None
    if isinstance(x, Node) and _is_relu6_of_shifted(_node(gate), x):
        return _instead(node, aten.hardsigmoid.default, x)
    return None


def _layer_norm(node: Node) -> Node | None:
    """(x - mean x) / sqrt(mean (x - mean x)^2 + epsilon), over the last axis."""
    if not is_call(node, aten.div.Tensor) or not is_call(node.args[0], aten.sub.Tensor):
        return None
    centred, deviation = _node(node.args[0]), node.args[1]
    x, mean = centred.args[0], centred.args[1]
    if not isinstance(x, Node) or not _is_last_mean(mean, x) or not is_call(deviation, aten.sqrt.default):
        return None
    shifted = _node(deviation).args[0]
    if not is_call(shifted, aten.add.Tensor) or not isinstance(_node(shifted).args[1], float):
        return None
    variance, epsilon = _node(shifted).args
    square = _node(variance).args[0]
    if not _is_last_mean(variance, square) or not is_call(square, aten.mul.Tensor):
        return None
    if not all(_is_same_difference(arg, centred) for arg in _node(square).args):
        return None
    return _instead(node, aten.layer_norm.default, x, [spec(x).shape[-1]], None, None, epsilon, False)


def _is_same_difference(value: object, centred: Node) -> bool:
    return value is centred or (is_call(value, aten.sub.Tensor) and _node(value).args == centred.args)


def _is_last_mean(node: object, x: object) -> bool:
    if not is_call(node, aten.mean.dim) or not isinstance(x, Node):
        return False
    mean = _node(node)
    return mean.args[0] is x and list(mean.args[1]) == [len(spec(x).shape) - 1] and mean.args[2] is True  # type: ignore[arg-type]


def _affine(node: Node) -> Node | None:
    """layer_norm(x) * weight + bias, both stored and of the normalised shape."""
    scaled, bias = node.args
    if not is_call(scaled, aten.mul.Tensor) or len(_node(scaled).users) > 1:
        return None
    norm, weight = _node(scaled).args
    if not is_call(norm, aten.layer_norm.default) or len(_node(norm).users) > 1 or _node(norm).args[2] is not None:
        return None
    x, shape, _, _, epsilon, _ = _node(norm).args
    if not all(_is_stored(value, shape) for value in (weight, bias)):
        return None
    return _instead(node, aten.layer_norm.default, x, shape, weight, bias, epsilon, False)


def _is_stored(value: object, shape: object) -> bool:
    return isinstance(value, Node) and value.op == "get_attr" and list(spec(value).shape) == shape
