"""What the kernels of all convolutions ask of a call."""

from __future__ import annotations

from typing import Any

from lvc.backends.tvm.cpu.integer_layers import with_correction
from lvc.backends.tvm.cpu.kernel_schedule import KernelSchedule
from lvc.backends.tvm.cpu.kernels.dot_operands import FLOAT32, DotOperand
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.operands import zero_edges
from lvc.backends.tvm.ops.table import Call
from lvc.compiler.ir.graph import arguments, spec


def can_convolve(call: Call) -> bool:
    """Whether a convolution has stored weights, reads an image that has a layout, and makes one in blocks."""
    return call["weight"].constant is not None and bool(call.layout.block) and call.layout_of("input") is not None


def geometry(call: Call) -> dict[str, Any]:
    """What every convolution over images is described by."""
    n, _, height, width = spec(call.in_memory("input")).shape
    ph, pw = call["padding"]
    top, left, bottom, right = zero_edges(arguments(call.node)["input"]) or (0, 0, 0, 0)
    return {
        "batch": n,
        "height": height,
        "width": width,
        "kernel": tuple(call["weight"].shape[2:]),
        "stride": tuple(call["stride"]),
        "padding": (ph + top, pw + left, ph + bottom, pw + right),
        "dilation": tuple(call["dilation"]),
    }


def in_block(call: Call) -> int:
    """Channels in a block of the data, 0 where it is plain."""
    layout = call.layout_of("input")
    assert layout is not None
    return layout.block


def anchored(call: Call, result: Any, schedule: KernelSchedule, operand: DotOperand = FLOAT32) -> Anchor:
    """A kernel that writes images, with a bias along their channels."""
    total = call.scope.leaf(result, call.shape, call.layout)
    return Anchor(with_correction(call, total, operand, 1), schedule)
