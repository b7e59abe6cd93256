"""Which calls have a kernel of their own, by rules that are asked in order, and in which layout a kernel wants its
operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.fx import Node

from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d, winograd
from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES
from lvc.backends.tvm.cpu.kernels.space import Point
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor, NoSuchWay
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.widening import multiplied_dtype
from lvc.compiler.ir.graph import WINOGRAD, arguments, is_call, spec
from lvc.compiler.ir.layers import CONVOLUTIONS, PRODUCTS
from lvc.compiler.ir.operators import integer

Rule = Callable[[Call, Vector], Anchor | None]

RULES: tuple[Rule, ...] = (
    depthwise.anchor,
    winograd.anchor,
    conv2d.anchor,
    conv_transpose2d.anchor,
    matmul.anchor,
    batch_matmul.anchor,
    pool2d.anchor,
)
"""Each says whether it has a nest for this call on this target; the first that has one is taken."""


def anchor_of(call: Call, vector: Vector) -> Anchor | None:
    """Use the kernel for a call, with the knobs of its rule; None where there is none and the general form must do."""
    found = next((found for rule in RULES if (found := rule(call, vector))), None)
    return found and settled(found, call, vector)


def settled(found: Anchor, call: Call, vector: Vector, point: Point | None = None) -> Anchor:
    """A kernel whose knobs are known: those of a point of its space, or else of its rule. `NoSuchWay` for a point
    that is not there."""
    schedule = found.schedule
    assert isinstance(schedule, KernelSchedule)
    if point is not None:
        space = schedule.kernel.space(schedule.problem, vector)
        if point not in space.points:
            raise NoSuchWay(f"{dict(zip(space.names, point, strict=False))} are no knobs of it")
        knobs = space.knobs(point)
    else:
        knobs = schedule.knobs or schedule.kernel.choose_knobs(schedule.problem, vector)
    return replace(found, schedule=replace(schedule, knobs=knobs, largest_tile=call.node.meta.get(WINOGRAD, 0)))


def wanted_layout(node: Node, operand: Node, layout: Layout, block: int) -> Layout:
    """The layout in which a call's kernel reads an operand that lies in ``layout``."""
    if is_call(node, *CONVOLUTIONS) and stored(arguments(node)["input"]) is operand:
        return _convolution_layout(node, layout, block)
    return PLAIN if is_call(node, *PRODUCTS) else layout


def _convolution_layout(node: Node, layout: Layout, block: int) -> Layout:
    channels = spec(arguments(node)["input"]).shape[1]
    few = channels < block and arguments(node)["groups"] == 1
    if layout.block or not few:
        return layout if layout.block else Layout(block)
    if is_call(node, integer.conv2d):
        return Layout(-(-channels // WORD_BYTES) * WORD_BYTES)
    if multiplied_dtype(node) is torch.bfloat16:
        return Layout(channels + channels % 2)
    return layout
