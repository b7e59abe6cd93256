"""Which calls have a kernel of their own, by rules that are asked in order, and in which layout a kernel wants its
operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d, winograd
from lvc.backends.tvm.cpu.kernels.dot_operands import WORD_BYTES
from lvc.backends.tvm.cpu.kernels.space import Space
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


def settled(found: Anchor, call: Call, vector: Vector, free: Mapping[str, int] | None = None) -> Anchor:
    """A kernel whose knobs are known: those with such ``free`` ones, or else those of its rule; `NoSuchWay` if it has
    none such."""
    schedule = found.schedule
    assert isinstance(schedule, KernelSchedule)
    if free is None:
        knobs = schedule.knobs or schedule.kernel.choose_knobs(schedule.problem, vector)
    else:
        knobs = chosen_knobs(schedule.kernel.space(schedule.problem, vector), free)
    return replace(found, schedule=replace(schedule, knobs=knobs, largest_tile=call.node.meta.get(WINOGRAD, 0)))


def chosen_knobs(space: Space, free: Mapping[str, int]) -> Any:
    """All knobs with such free ones; `NoSuchWay` if a space has none."""
    point = tuple(free.values())
    if tuple(free) != space.names or point not in space.points:
        raise NoSuchWay(f"{', '.join(f'{name}={value}' for name, value in free.items())} are no knobs of it")
    return space.knobs(point)


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
