"""Paddings that add nothing, that follow each other, or that the window operator after them can do itself."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, set_argument, spec
from lvc.compiler.pipeline.rewriting import Rules
from lvc.passes.identities.ranges import value_range

_PAD = aten.constant_pad_nd.default


def pad_by_nothing(module: GraphModule, node: Node) -> Node | None:
    """``pad(x, 0 0 ...) = x``."""
    args = arguments(node)
    operand: Node = args["self"]
    return None if any(args["pad"]) else operand


def pad_of_pad(module: GraphModule, node: Node) -> Node | str | None:
    """``pad(pad(x, a), b) = pad(x, a + b)`` for one value."""
    inner = node.args[0]
    if not isinstance(inner, Node) or not is_call(inner, _PAD):
        return None
    first, second = arguments(inner), arguments(node)
    if first["value"] != second["value"]:
        return f"'{inner.name}' before it pads with {first['value']}, not with {second['value']}"
    if min(*first["pad"], *second["pad"]) < 0:
        return f"it or '{inner.name}' before it cuts elements off"
    size = max(len(first["pad"]), len(second["pad"]))
    widths = [a + b for a, b in zip(_filled(first["pad"], size), _filled(second["pad"], size), strict=True)]
    node.args, node.kwargs = (first["self"], widths, second["value"]), {}
    return node


def pad_into_conv(module: GraphModule, node: Node) -> Node | str | None:
    """A convolution over zeros added on both sides alike is a convolution with a larger padding."""
    pad = _pad_before(node)
    if pad is None:
        return None
    if pad["value"] != 0:
        return f"the padding before it is with {pad['value']}, and a convolution pads with 0"
    return _absorb(node, pad)


def pad_into_avg_pool(module: GraphModule, node: Node) -> Node | str | None:
    """An average over added zeros is one that counts its padding."""
    pad = _pad_before(node)
    if pad is None:
        return None
    args = arguments(node)
    if pad["value"] != 0:
        return f"the padding before it is with {pad['value']}, and an average pool pads with 0"
    if args["ceil_mode"]:
        return "its last window may reach beyond the padding before it"
    if any(args["padding"]) and not args["count_include_pad"]:
        return "it leaves its own padding out of the average, and not the padding before it"
    result = _absorb(node, pad)
    if isinstance(result, Node):
        set_argument(node, "count_include_pad", True)
    return result


def pad_into_max_pool(module: GraphModule, node: Node) -> Node | str | None:
    """The maximum of a window does not change with added values that are no larger than the others."""
    pad = _pad_before(node)
    if pad is None:
        return None
    if pad["value"] > value_range(pad["self"]).low:
        return f"the padding before it is with {pad['value']}, which may be the maximum of a window"
    args = arguments(node)
    if args["ceil_mode"] or max(args["dilation"]) > 1:
        return "a window of it may lie in the padding before it altogether"
    return _absorb(node, pad)


def _pad_before(node: Node) -> dict[str, Any] | None:
    """The arguments of the constant padding that a window operator reads, or None."""
    inner = node.args[0]
    return arguments(inner) if isinstance(inner, Node) and is_call(inner, _PAD) else None


def _absorb(node: Node, pad: dict[str, Any]) -> Node | str:
    """Let a window operator pad by itself what was padded before it, or say why it cannot."""
    left, right, top, bottom, *others = _filled(pad["pad"], 4)
    if any(others):
        return "the padding before it adds channels or images too"
    if left != right or top != bottom:
        return f"the padding before it is uneven: {top} above, {bottom} below, {left} left, {right} right"
    if left < 0 or top < 0:
        return "the padding before it cuts elements off"
    args = arguments(node)
    padding = [old + new for old, new in zip(args["padding"], (top, left), strict=True)]
    if "kernel_size" in args:
        kernel = args["kernel_size"]
        if any(2 * width > size for width, size in zip(padding, kernel, strict=True)):
            return f"padding by {padding} would be more than half of its window of {list(kernel)}"
    set_argument(node, "padding", padding)
    node.update_arg(0, pad["self"])
    return node


def _filled(pad: list[int], size: int) -> list[int]:
    return [*pad, *[0] * (size - len(pad))]


def pool_of_one(module: GraphModule, node: Node) -> Node | None:
    """A pool whose window is one element."""
    args = arguments(node)
    operand: Node = args["self"]
    if args.get("divisor_override") not in (None, 1) or any(size != 1 for size in args["kernel_size"]):
        return None
    return operand if spec(operand) == spec(node) else None


RULES: Rules = {
    _PAD: (pad_by_nothing, pad_of_pad),
    aten.pad.default: (pad_by_nothing,),
    aten.conv2d.default: (pad_into_conv,),
    aten.avg_pool2d.default: (pool_of_one, pad_into_avg_pool),
    aten.max_pool2d.default: (pool_of_one, pad_into_max_pool),
}
