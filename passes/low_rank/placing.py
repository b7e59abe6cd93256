"""Kernels put in the place of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import (
    WINOGRAD,
    add_tensor,
    arguments,
    erase_unread,
    infer_spec,
    insert_call,
    is_call,
    spec,
    store,
)
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.spec import TensorSpec
from lvc.passes.low_rank.kernel import Kernel


def put_in_place(module: GraphModule, node: Node, kernels: Sequence[Kernel]) -> list[Node]:
    """Let a layer be computed by kernels one after the other; return their nodes.

    The last of them is the node itself, with its name, its bias and whoever reads it. The weight ``conv1.weight``
    becomes ``conv1.0.weight``, ``conv1.1.weight``, ..., as in a sequence of modules; of one kernel it keeps its name.
    """
    data, weight = factors(node)
    bias, dtype, is_linear = arguments(node)["bias"], spec(weight).dtype, is_call(node, aten.linear.default)
    prefix = _prefix(str(weight.target))
    made = insert_kernels(module, node, data, kernels[:-1], prefix, dtype=dtype, is_linear=is_linear)
    last = _stored(kernels[-1], dtype, is_linear)
    if len(kernels) == 1:
        store(module, str(weight.target), last)
        weight.meta["spec"] = TensorSpec.of(last)
        held = weight
    else:
        held = add_tensor(module, node, f"{prefix}{len(made)}.weight", last)
    node.target, rest = _call(kernels[-1], is_linear)
    node.args, node.kwargs = (made[-1] if made else data, held, bias, *rest), {}
    node.meta.pop(WINOGRAD, None)
    node.meta["spec"] = infer_spec(node)
    if held is not weight:
        erase_unread(module, [weight])
    return [*made, node]


def insert_kernels(
    module: GraphModule,
    before: Node,
    data: Node,
    kernels: Sequence[Kernel],
    prefix: str,
    *,
    dtype: torch.dtype = torch.float32,
    is_linear: bool,
) -> list[Node]:
    """Insert calls of kernels one after the other, without biases; weights are numbered behind ``prefix``."""
    made: list[Node] = []
    for place, kernel in enumerate(kernels):
        held = add_tensor(module, before, f"{prefix}{place}.weight", _stored(kernel, dtype, is_linear))
        target, rest = _call(kernel, is_linear)
        made.append(insert_call(before, target, made[-1] if made else data, held, None, *rest))
    return made


def _prefix(name: str) -> str:
    """What stands before the numbers of the factors."""
    return f"{name.removesuffix('weight').removesuffix('.') or name}."


def _stored(kernel: Kernel, dtype: torch.dtype, is_linear: bool) -> torch.Tensor:
    weight = kernel.stored_weight().to(dtype)
    return weight.flatten(1) if is_linear else weight.contiguous()


def _call(kernel: Kernel, is_linear: bool) -> tuple[OpOverload, tuple[Any, ...]]:
    """The operator of a kernel, and its arguments behind the bias."""
    if is_linear:
        return aten.linear.default, ()
    stride, padding, dilation = map(list, (kernel.stride, kernel.padding, kernel.dilation))
    if kernel.output_padding is None:
        return aten.conv2d.default, (stride, padding, dilation, kernel.groups)
    return aten.conv_transpose2d.input, (stride, padding, list(kernel.output_padding), kernel.groups, dilation)
