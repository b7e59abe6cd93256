"""Which calls have a kernel of their own, and in which layout that kernel wants its operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from lvc.backends.tvm.kernels import conv2d
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.ops.contractions import with_bias
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import ScheduleFunction
from lvc.backends.tvm.scope import Array
from lvc.compiler.graph import arguments, is_call, spec

aten = torch.ops.aten


@dataclass(frozen=True)
class Anchor:
    """The result of a kernel's contraction before the elementwise work, and how to schedule the whole.

    ``shape`` is the shape in memory in which the kernel writes, where it differs from that of the layout.
    """

    array: Array
    schedule: ScheduleFunction
    shape: tuple[int, ...] | None = None


# the tensor in memory behind an operand of a call, in a shape in memory
Tensors = Callable[[str, tuple[int, ...] | None], Any]


def wanted_layout(node: Node, operand: Node, layout: Layout, block: int) -> Layout:
    """The layout in which a call's kernel reads an operand that lies in ``layout``."""
    if is_call(node, aten.conv2d.default) and arguments(node)["input"] is operand:
        return _convolution_layout(node, layout, block)
    if is_call(node, aten.linear.default, aten.matmul.default):
        return PLAIN
    return layout


def _convolution_layout(node: Node, layout: Layout, block: int) -> Layout:
    few = spec(arguments(node)["input"]).shape[1] < block and arguments(node)["groups"] == 1
    return layout if layout.block or few else Layout(block)


def anchor_of(call: Call, layouts: dict[Node, Layout], tensors: Tensors) -> Anchor | None:
    """Use the kernel for a call; None where there is none and the general form must do."""
    if call.dtype != "float32":
        return None
    if is_call(call.node, aten.conv2d.default):
        return _conv2d(call, layouts, tensors)
    return None


def _conv2d(call: Call, layouts: dict[Node, Layout], tensors: Tensors) -> Anchor | None:
    weight = call["weight"]
    if weight.constant is None or not call.layout.block:
        return None
    n, c, height, width = call["input"].shape
    (ph, pw) = call["padding"]
    problem = conv2d.Conv2d(
        batch=n,
        in_channels=c,
        height=height,
        width=width,
        out_channels=weight.shape[0],
        kernel=(weight.shape[2], weight.shape[3]),
        stride=tuple(call["stride"]),
        padding=(ph, pw, ph, pw),
        dilation=tuple(call["dilation"]),
        groups=call["groups"],
        in_block=layouts[arguments(call.node)["input"]].block,
        out_block=call.layout.block,
    )
    return _packed(call, conv2d, problem, weight, tensors)


def _packed(call: Call, kernel: Any, problem: Any, weight: Array, tensors: Tensors) -> Anchor:
    """A kernel over a blocked operand and packed weights, with a bias along the channels."""
    packed = call.scope.packed(*_packing(call, kernel, problem, weight))
    result = kernel.compute(problem, tensors("input", None), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    return Anchor(with_bias(call, total, 1), partial(_schedule, kernel, problem))


def _packing(
    call: Call, kernel: Any, problem: Any, weight: Array
) -> tuple[str, tuple[int, ...], str, Callable[[], np.ndarray]]:
    values = weight.constant
    key = f"{arguments(call.node)['weight'].target} {problem}"
    return key, kernel.packed_shape(problem), "float32", lambda: kernel.pack_weight(problem, values)


def _schedule(kernel: Any, problem: Any, sch: Any, vector: Any) -> None:
    kernel.schedule(sch, problem, vector)
