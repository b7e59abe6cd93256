"""Which calls have a kernel of their own, by rules that are asked in order, and in which layout a kernel wants its
operands."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Node

from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.kernels import (
    batch_matmul,
    conv2d,
    depthwise,
    matmul,
    ordering,
    regions,
    tensor_batch_matmul,
    tensor_conv2d,
    tensor_matmul,
)
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.compiler.ir.layers import CONVOLUTIONS, PRODUCTS
from lvc.compiler.ir.operators import integer

Rule = Callable[[Call, Gpu], Anchor | None]

RULES: tuple[Rule, ...] = (
    depthwise.anchor,
    tensor_conv2d.anchor,
    conv2d.anchor,
    tensor_matmul.anchor,
    matmul.anchor,
    tensor_batch_matmul.anchor,
    batch_matmul.anchor,
    ordering.anchor,
    regions.anchor,
)
"""Each says whether it has launches for this call on this GPU; the first that has some is taken."""


def anchor_of(call: Call, gpu: Gpu) -> Anchor | None:
    """Use the kernel for a call; None where there is none and the general form must do."""
    return next((found for rule in RULES if (found := rule(call, gpu))), None)


def wanted_layout(node: Node, operand: Node, layout: Layout, block: int) -> Layout:
    """The layout in which a call's kernel reads an operand that lies in ``layout``."""
    if is_call(node, *CONVOLUTIONS) and stored(arguments(node)["input"]) is operand:
        channels, is_integer = spec(arguments(node)["input"]).shape[1], is_call(node, integer.conv2d)
        few = channels < block and arguments(node)["groups"] == 1 and not is_integer
        return layout if layout.block or few else Layout(block)
    return PLAIN if is_call(node, *PRODUCTS) else layout
