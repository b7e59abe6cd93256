"""What can run in integers: the table of operators that have an integer kernel, and what each asks of its operands."""

from __future__ import annotations

from enum import Enum

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, family, is_call, op_name, spec
from lvc.compiler.ir.layers import INTEGER_LAYERS, factors
from lvc.passes.quantisation.floating_point import FLOATING_POINT


class Role(Enum):
    """How an operator computes in integers."""

    WEIGHTED = "multiplies by a stored weight"
    PRODUCT = "multiplies computed matrices"
    RESCALE = "computes in integers from the scales of its operands to one of its own"
    TABLE = "any function of one value: a table with an entry for each integer"
    FACTOR = "multiplies by a stored number for each channel, behind a layer only"
    PASS = "moves or selects values: the result has the quantisation parameters of the operands"


ROLES: dict[OpOverload, Role] = {
    **dict.fromkeys(INTEGER_LAYERS, Role.WEIGHTED),
    aten.matmul.default: Role.PRODUCT,
    aten.add.Tensor: Role.RESCALE,
    aten.mul.Tensor: Role.RESCALE,
    aten.avg_pool2d.default: Role.RESCALE,
    aten.adaptive_avg_pool2d.default: Role.RESCALE,
    aten.mean.dim: Role.RESCALE,
    **dict.fromkeys(
        (
            aten.relu.default,
            aten.clamp.default,
            aten.sigmoid.default,
            aten.hardsigmoid.default,
            aten.tanh.default,
            aten.silu.default,
            aten.hardswish.default,
            aten.gelu.default,
            aten.mish.default,
            aten.elu.default,
            aten.leaky_relu.default,
        ),
        Role.TABLE,
    ),
    **dict.fromkeys(
        (
            aten.max_pool2d.default,
            aten.reshape.default,
            aten.permute.default,
            aten.expand.default,
            aten.repeat.default,
            aten.cat.default,
            aten.slice.Tensor,
            aten.roll.default,
            aten.flip.default,
            aten.constant_pad_nd.default,
            aten.pixel_shuffle.default,
            aten.pixel_unshuffle.default,
            aten.upsample_nearest2d.vec,
        ),
        Role.PASS,
    ),
}

LIMITS = (aten.relu.default, aten.clamp.default)
"""What every kernel before them does in integers as it writes its result, so that nothing is quantised between."""

CURVES = (
    aten.silu.default,
    aten.sigmoid.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.elu.default,
    aten.mish.default,
    aten.leaky_relu.default,
    aten.mul.Tensor,
)
"""What the kernel of a layer computes in single precision before it rounds its result, so that nothing is quantised
between: in front of SiLU the large values would leave few steps to those near zero, where it curves."""


def role(node: Node) -> Role | None:
    """Return how a node computes in integers; None if there is no kernel for it."""
    if refusal(node):
        return None
    return Role.FACTOR if is_call(node, aten.mul.Tensor) and _is_factor(node.args[1]) else ROLES[node.target]  # type: ignore[index]


def refusal(node: Node) -> str | None:
    """Why no integer kernel computes a node, whatever stands around it; None if one does."""
    if node.op != "call_function" or node.target not in ROLES:
        why = FLOATING_POINT.get(node.target)  # type: ignore[call-overload]
        return f"there is no integer kernel for {op_name(node)}" + (f": {why}" if why else "")
    if spec(node).dtype != torch.float32:
        return f"integer kernels stand for float32, and it is {spec(node).dtype}"
    args = arguments(node)
    if ROLES[node.target] is Role.WEIGHTED and not is_weight(args["weight"]):
        return "its weight is computed in the graph"
    if node.target is aten.matmul.default:
        return _refuse_matmul(node)
    if node.target is aten.add.Tensor:
        return _refuse_add(node)
    if node.target is aten.mul.Tensor:
        return _refuse_mul(node)
    if node.target is aten.mean.dim and not _is_spatial(node):
        return "integer kernels average over height and width only"
    if node.target is aten.constant_pad_nd.default and args["value"] != 0:
        return f"it pads with {args['value']}, which the quantised values may not have"
    return None


def _refuse_matmul(node: Node) -> str | None:
    left, right = node.all_input_nodes[0], node.all_input_nodes[-1]
    if is_weight(left) or is_weight(right):
        return "the integer kernel multiplies computed matrices, and one is stored"
    if len(spec(left).shape) < 2 or spec(left).shape[:-2] != spec(right).shape[:-2]:
        return "the integer kernel multiplies two stacks of as many matrices"
    return None


def _refuse_add(node: Node) -> str | None:
    args = arguments(node)
    if not isinstance(args["other"], Node) or args["alpha"] != 1:
        return "the integer kernel adds two tensors"
    if spec(args["self"]).shape != spec(args["other"]).shape:
        return "the integer kernel adds tensors of one shape"
    return None


def _refuse_mul(node: Node) -> str | None:
    left, right = node.args
    if _is_factor(right) or all(isinstance(side, Node) and side.op != "get_attr" for side in (left, right)):
        return None
    return "the integer kernel multiplies two tensors, or one by a stored number for each channel"


def _is_factor(value: object) -> bool:
    """Whether it is one stored number, or one for each channel."""
    if not isinstance(value, Node) or value.op != "get_attr":
        return False
    shape = spec(value).shape
    return spec(value).elements == (shape[1] if len(shape) > 1 else 1)


def _is_spatial(node: Node) -> bool:
    rank = len(spec(node.args[0]).shape)  # type: ignore[arg-type]
    return rank == 4 and {dim % rank for dim in arguments(node)["dim"] or ()} == {2, 3}


def activations(node: Node) -> list[Node]:
    """Return the operands that must be quantised for a node to run in integers, its weight and bias left out."""
    if ROLES[node.target] is Role.WEIGHTED:  # type: ignore[index]
        return [factors(node)[0]]
    return node.all_input_nodes


def is_weight(node: Node) -> bool:
    """Whether an operand is a stored tensor, perhaps quantised."""
    return node.op == "get_attr" or (is_quantised(node) and is_weight(node.all_input_nodes[0]))


def is_quantised(node: Node) -> bool:
    """Whether a value was quantised, or waits for its quantisation parameters."""
    return family(node) is Family.QUANTISATION
