"""Chains: a layer whose output channels reach nothing but the inputs of other layers, each channel on its own.

What stands between computes ``f(s x) = s f(x)`` for every positive s, so each channel can be scaled behind the first
layer and scaled back before the others. A limit ``clamp(x, 0, b)`` does so only as far as no value is cut off. Behind a
function that does not, such as SiLU, the chain begins anew, and scaling takes a multiplication there.

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, is_call, op_name, spec
from lvc.compiler.ir.layers import MATRIX_LAYERS, channel_dim, contraction, factors

_HOMOGENEOUS = (
    aten.relu.default,
    aten.leaky_relu.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
    aten.constant_pad_nd.default,
    aten.upsample_nearest2d.vec,
    aten.clamp.default,
)
_CURVES = (
    aten.silu.default,
    aten.hardswish.default,
    aten.mish.default,
    aten.gelu.default,
    aten.elu.default,
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
)


@dataclass(frozen=True)
class Chain:
    """Where scaling begins, a layer or a function behind one; the calls that follow, in order; the layers that read."""

    first: Node
    between: tuple[Node, ...]
    readers: tuple[Node, ...]

    @property
    def is_curved(self) -> bool:
        """Whether it begins behind a function, so that no weights can take its scale up."""
        return is_call(self.first, *_CURVES)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is read by channels of its own, in whose weights a factor costs nothing."""
        return all(_is_depthwise(reader) for reader in self.readers)

    @property
    def limit(self) -> float | None:
        """The least upper bound that a clamp sets; None without one."""
        bounds = [float(arguments(node)["max"]) for node in self.between if is_call(node, aten.clamp.default)]
        return min(bounds, default=None)

    @property
    def value(self) -> Node:
        """The value whose range is to be even: that behind the activation, where it is quantised."""
        activations = [n for n in self.between if is_call(n, aten.relu.default, aten.clamp.default)]
        return activations[-1] if activations else self.first


def chains(graph: Graph) -> Iterator[Chain | tuple[Node, str]]:
    """Yield the chain that begins at each layer, or the layer and why there is none."""
    for layer in calls(graph, *MATRIX_LAYERS):
        found = _follow(layer)
        yield (layer, found) if isinstance(found, str) else found


def _follow(layer: Node) -> Chain | str:
    if channel_dim(layer) != 1:
        return "its channels are not dimension 1"
    between: list[Node] = []
    first = value = layer
    while True:
        users = list(value.users)
        if users and all(is_call(user, *MATRIX_LAYERS) and user.args[0] is value for user in users):
            break
        if len(users) != 1:
            return f"'{value.name}' is read in {len(users)} places, and not all are layers"
        value = users[0]
        if is_call(value, *_CURVES):
            first, between = value, []
        elif reason := _refuse(value):
            return reason
        else:
            between.append(value)
    refusals = [_refuse_weights(layer)] if first is layer else []
    refusals += [_refuse_reader(reader, value) for reader in users]
    return next(filter(None, refusals), None) or Chain(first, tuple(between), tuple(users))


def _is_depthwise(reader: Node) -> bool:
    entry = contraction(reader)
    return entry.is_convolution and spec(factors(reader)[1]).shape[entry.read] == 1


def _refuse_weights(layer: Node) -> str | None:
    args = arguments(layer)
    if args["weight"].op != "get_attr" or len(args["weight"].users) > 1:
        return f"the weight of '{layer.name}' is computed, or shared"
    if args["bias"] is not None and (args["bias"].op != "get_attr" or len(args["bias"].users) > 1):
        return f"the bias of '{layer.name}' is computed, or shared"
    return None


def _refuse_reader(reader: Node, value: Node) -> str | None:
    if channel_dim(reader, value) != 1:
        return f"its channels are not those that '{reader.name}' reads"
    return _refuse_weights(reader)


def _refuse(node: Node) -> str | None:
    """Why a chain ends before a node; None if it goes on through it."""
    if node.op == "output":
        return "its result leaves the model"
    if not is_call(node, *_HOMOGENEOUS):
        return f"'{node.name}' ({op_name(node)}) after it does not scale with its input"
    args = arguments(node)
    if is_call(node, aten.clamp.default) and (args["min"] != 0 or args["max"] is None):
        return f"'{node.name}' (clamp) after it has other limits than zero and an upper one"
    if is_call(node, aten.constant_pad_nd.default) and (args["value"] != 0 or any(args["pad"][4:])):
        return f"'{node.name}' after it pads with other values than zero, or pads channels"
    if is_call(node, aten.mean.dim) and {dim % 4 for dim in args["dim"] or ()} != {2, 3}:
        return f"'{node.name}' after it averages over channels"
    return None
