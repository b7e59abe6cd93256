"""Arithmetic with neutral elements, clamps of clamps, and calls that compute nothing."""

from __future__ import annotations

from math import inf

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, spec, tensor
from lvc.compiler.pipeline.rewriting import Rule, Rules
from lvc.passes.identities.movement import same_result
from lvc.passes.identities.ranges import Range, clamp_range, value_range

_LARGEST_NEUTRAL = 1 << 16


def dropout_in_evaluation(module: GraphModule, node: Node) -> Node | str | None:
    """Dropout passes its input on, unless the model is in training."""
    args = arguments(node)
    operand: Node = args["input"]
    if args["train"] and args["p"] > 0:
        return "it runs in training mode"
    return operand


def neutral_element(value: float, commutes: bool) -> Rule:
    """The rule for ``x op value = x``, and ``value op x = x`` where the operator commutes."""

    def rule(module: GraphModule, node: Node) -> Node | None:
        left, right = node.args[:2]
        if _is_filled_with(module, right, value) and isinstance(left, Node) and spec(left) == spec(node):
            return left
        if not commutes or arguments(node).get("alpha", 1) != 1:
            return None
        if _is_filled_with(module, left, value) and isinstance(right, Node) and spec(right) == spec(node):
            return right
        return None

    return rule


def _is_filled_with(module: GraphModule, operand: object, value: float) -> bool:
    stored = tensor(module, operand)
    if stored is None:
        return isinstance(operand, (int, float)) and not isinstance(operand, bool) and operand == value
    return 0 < stored.numel() <= _LARGEST_NEUTRAL and bool((stored == value).all())


def clamp_without_effect(module: GraphModule, node: Node) -> Node | None:
    """``clamp(x, a, b) = x`` if x lies between a and b anyway."""
    operand, bounds = node.args[0], clamp_range(node)
    if bounds is None or not isinstance(operand, Node) or spec(operand) != spec(node):
        return None
    known = value_range(operand)
    return operand if bounds.low <= known.low and known.high <= bounds.high else None


def clamp_of_clamp(module: GraphModule, node: Node) -> Node | None:
    """``clamp(clamp(x, a, b), c, d) = clamp(x, max(a, c), min(b, d))`` if that is not empty."""
    inner, outer = node.args[0], clamp_range(node)
    if outer is None or not isinstance(inner, Node):
        return None
    first, operand = clamp_range(inner), inner.args[0] if inner.args else None
    if first is None or not isinstance(operand, Node) or not spec(operand) == spec(inner) == spec(node):
        return None
    both = Range(max(first.low, outer.low), min(first.high, outer.high))
    if both.low > both.high:
        return None
    _set_clamp(node, operand, both)
    return node


def _set_clamp(node: Node, operand: Node, bounds: Range) -> None:
    """Make a call the clamp of an operand to bounds, a `relu` where it is one."""
    node.kwargs = {}
    if bounds == Range(low=0):
        node.target, node.args = aten.relu.default, (operand,)
        return
    low = None if bounds.low == -inf else bounds.low
    node.target, node.args = aten.clamp.default, (operand, low, None if bounds.high == inf else bounds.high)


def reduce_of_one(module: GraphModule, node: Node) -> Node | None:
    """A mean, sum, maximum or minimum over dimensions of size 1 changes at most the shape."""
    args = arguments(node)
    operand: Node = args["self"]
    dims = args["dim"] if isinstance(args["dim"], list) else [args["dim"]]
    if not dims or dims == [None] or not spec(operand).shape:
        dims = list(range(len(spec(operand).shape)))
    if spec(operand).dtype != spec(node).dtype or any(spec(operand).shape[dim] != 1 for dim in dims):
        return None
    if spec(operand) == spec(node):
        return operand
    node.target, node.args, node.kwargs = aten.reshape.default, (operand, list(spec(node).shape)), {}
    return node


def resize_to_same_size(module: GraphModule, node: Node) -> Node | None:
    """Interpolation to the size that the image has, by no other factor than 1."""
    factors = arguments(node)["scale_factors"] or ()
    return same_result(module, node) if all(factor == 1 for factor in factors) else None


def negate_twice(module: GraphModule, node: Node) -> Node | None:
    """``-(-x) = x``."""
    inner = node.args[0]
    if not isinstance(inner, Node) or not is_call(inner, aten.neg.default):
        return None
    operand = inner.args[0]
    return operand if isinstance(operand, Node) else None


def alpha_of_one(module: GraphModule, node: Node) -> Node | None:
    """``add(x, y, alpha=a) = add(x, a*y)`` for a number y, so that the neutral rule and backends see one case."""
    args = arguments(node)
    if args["alpha"] == 1 or isinstance(args["other"], Node):
        return None
    node.args, node.kwargs = (args["self"], args["other"] * args["alpha"]), {}
    return node


_REDUCE: tuple[Rule, ...] = (reduce_of_one,)
_RESIZE: tuple[Rule, ...] = (resize_to_same_size,)

RULES: Rules = {
    aten.dropout.default: (dropout_in_evaluation,),
    aten.add.Tensor: (alpha_of_one, neutral_element(0, commutes=True)),
    aten.sub.Tensor: (alpha_of_one, neutral_element(0, commutes=False)),
    aten.mul.Tensor: (neutral_element(1, commutes=True),),
    aten.div.Tensor: (neutral_element(1, commutes=False),),
    aten.pow.Tensor_Tensor: (neutral_element(1, commutes=False),),
    aten.neg.default: (negate_twice,),
    aten.to.dtype: (same_result,),
    aten.relu.default: (clamp_without_effect, clamp_of_clamp),
    aten.clamp.default: (clamp_without_effect, clamp_of_clamp),
    aten.mean.dim: _REDUCE,
    aten.sum.dim_IntList: _REDUCE,
    aten.prod.dim_int: _REDUCE,
    aten.amax.default: _REDUCE,
    aten.amin.default: _REDUCE,
    aten.adaptive_avg_pool2d.default: (same_result,),
    aten.upsample_nearest2d.vec: _RESIZE,
    aten.upsample_bilinear2d.vec: _RESIZE,
    aten.upsample_bicubic2d.vec: _RESIZE,
}
