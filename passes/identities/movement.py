"""Calls that move elements back where they were, or that move them twice."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.compiler.pipeline.rewriting import Rule, Rules


def same_result(module: GraphModule, node: Node) -> Node | None:
    """``f(x) = x`` where the operator can only keep or change the shape or the type, and it kept both."""
    operand = node.args[0]
    assert isinstance(operand, Node)
    return operand if spec(operand) == spec(node) else None


def reshape_of_reshape(module: GraphModule, node: Node) -> Node | None:
    """``reshape(reshape(x, a), b) = reshape(x, b)``."""
    inner = node.args[0]
    if not isinstance(inner, Node) or not is_call(inner, aten.reshape.default):
        return None
    node.args = (inner.args[0], list(spec(node).shape))
    return node


def permute(module: GraphModule, node: Node) -> Node | None:
    """``permute(x, 0 1 2) = x``; one that moves only dimensions of size 1 is a reshape."""
    operand, order = node.args[0], permutation(node)
    assert isinstance(operand, Node)
    if order == sorted(order):
        return operand
    moved = [dim for dim in order if spec(operand).shape[dim] != 1]
    if moved != sorted(moved):
        return None
    node.target, node.args, node.kwargs = aten.reshape.default, (operand, list(spec(node).shape)), {}
    return node


def permute_of_permute(module: GraphModule, node: Node) -> Node | None:
    """``permute(permute(x, a), b) = permute(x, a[b])``."""
    inner = node.args[0]
    if not isinstance(inner, Node) or not is_call(inner, aten.permute.default):
        return None
    first = permutation(inner)
    node.args = (inner.args[0], [first[dim] for dim in permutation(node)])
    return node


def permutation(node: Node) -> list[int]:
    """The dimensions of a permute, counted from 0."""
    dims: list[int] = arguments(node)["dims"]
    return [dim % len(dims) for dim in dims]


def cat_of_one(module: GraphModule, node: Node) -> Node | None:
    """``cat([x]) = x``; operands without elements add nothing."""
    operands: list[Node] = arguments(node)["tensors"]
    filled = [operand for operand in operands if spec(operand).elements]
    if len(filled) == 1 and spec(filled[0]) == spec(node):
        return filled[0]
    return None


def slice_of_everything(module: GraphModule, node: Node) -> Node | None:
    """``x[0:size] = x``; a slice of the same shape can only have step 1 or size 1."""
    return same_result(module, node)


def roll_by_nothing(module: GraphModule, node: Node) -> Node | None:
    """A roll by a multiple of the size of each rolled dimension."""
    args = arguments(node)
    operand: Node = args["self"]
    shape = spec(operand).shape
    sizes = [shape[dim] for dim in args["dims"]] or [spec(operand).elements]
    return (
        operand if all(shift % max(1, size) == 0 for shift, size in zip(args["shifts"], sizes, strict=True)) else None
    )


def flip_of_one(module: GraphModule, node: Node) -> Node | None:
    """A flip of dimensions that have one element."""
    args = arguments(node)
    operand: Node = args["self"]
    return operand if all(spec(operand).shape[dim] == 1 for dim in args["dims"]) else None


def shuffle_by_one(module: GraphModule, node: Node) -> Node | None:
    """A pixel shuffle whose factor is 1."""
    return same_result(module, node) if node.args[1] == 1 else None


_SAME: tuple[Rule, ...] = (same_result,)

RULES: Rules = {
    aten.reshape.default: (same_result, reshape_of_reshape),
    aten.permute.default: (permute, permute_of_permute),
    aten.expand.default: _SAME,
    aten.repeat.default: _SAME,
    aten.slice.Tensor: (slice_of_everything,),
    aten.cat.default: (cat_of_one,),
    aten.roll.default: (roll_by_nothing,),
    aten.flip.default: (flip_of_one,),
    aten.pixel_shuffle.default: (shuffle_by_one,),
    aten.pixel_unshuffle.default: (shuffle_by_one,),
}
