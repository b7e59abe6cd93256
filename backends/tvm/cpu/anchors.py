"""Which calls have a kernel of their own, and in which layout that kernel wants its operands."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from tvm import te

from lvc.backends.tvm.cpu import decoding
from lvc.backends.tvm.cpu.integer_layers import (
    choose_operand,
    guards_of,
    is_exact_in_float32,
    is_integer_layer,
    pairs_for,
    widened_weight,
    with_correction,
)
from lvc.backends.tvm.cpu.kernels import batch_matmul, conv2d, conv_transpose2d, depthwise, matmul, pool2d, winograd
from lvc.backends.tvm.cpu.kernels.dot_operands import BFLOAT16, FLOAT32, WORD_BYTES, DotOperand
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Anchor
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored, zero_edges
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.table import Call
from lvc.backends.tvm.program import AsWritten, ScheduleFunction
from lvc.backends.tvm.scope import Constant, Parameter, Prepared
from lvc.backends.tvm.widening import multiplies_pairs
from lvc.compiler.ir.graph import WINOGRAD, arguments, is_call, spec
from lvc.compiler.ir.layers import CONVOLUTIONS, PRODUCTS
from lvc.compiler.ir.operators import integer

aten = torch.ops.aten


@dataclass(frozen=True)
class KernelSchedule:
    """The schedule of a kernel for a problem."""

    function: Callable[[Any, Any, Vector], None]
    problem: Any

    def __call__(self, sch: Any, vector: Vector) -> None:
        self.function(sch, self.problem, vector)

    def __str__(self) -> str:
        return f"{self.function.__module__} {self.problem}"


def wanted_layout(node: Node, operand: Node, layout: Layout, block: int) -> Layout:
    """The layout in which a call's kernel reads an operand that lies in ``layout``."""
    if is_call(node, *CONVOLUTIONS) and stored(arguments(node)["input"]) is operand:
        return _convolution_layout(node, layout, block)
    if is_call(node, *PRODUCTS):
        return PLAIN
    return layout


def _convolution_layout(node: Node, layout: Layout, block: int) -> Layout:
    channels = spec(arguments(node)["input"]).shape[1]
    few = channels < block and arguments(node)["groups"] == 1
    if layout.block or not few:
        return layout if layout.block else Layout(block)
    if is_call(node, integer.conv2d):
        return Layout(-(-channels // WORD_BYTES) * WORD_BYTES)
    if multiplies_pairs(node):
        return Layout(channels + channels % 2)
    return layout


def anchor_of(call: Call, vector: Vector) -> Anchor | None:
    """Use the kernel for a call; None where there is none and the general form must do."""
    find = _FINDERS.get(call.node.target) if _has_kernels(call) else None
    return find(call, vector) if find else None


def _has_kernels(call: Call) -> bool:
    """Whether there are kernels for the type of a call's result."""
    if is_call(call.node, aten.max_pool2d.default):
        return call.dtype in ("float32", "uint8", "int8")
    return call.dtype == "float32" or call.node.target in integer.OPERATORS


def _convolution(call: Call, vector: Vector) -> Anchor | None:
    weight, layout = call["weight"], call.layout_of("input")
    if weight.constant is None or not call.layout.block or layout is None:
        return None
    c, groups, geometry = call["input"].shape[1], call["groups"], _geometry(call)
    in_block, out_block = layout.block, call.layout.block
    if groups == c == weight.shape[0] > 1 and is_exact_in_float32(call):
        zero_point = call.operands.get("zero_point")
        depthwise_problem = depthwise.Depthwise(channels=c, block=out_block, zero_point=zero_point, **geometry)
        return _packed(call, depthwise, depthwise_problem, weight.constant.astype(np.float32))
    problem = conv2d.Conv2d(
        in_channels=c,
        out_channels=weight.shape[0],
        groups=groups,
        in_block=in_block,
        out_block=out_block,
        **geometry,
    )
    problem = replace(problem, operand=_dot_operand(call, vector, conv2d, problem))
    if tile := winograd.choose_tile(problem, vector, call.node.meta.get(WINOGRAD, 0)):
        filtering = winograd.Winograd(problem, tile)
        if shape := winograd.shared_shape(filtering, vector):
            call.scope.shared(shape, "float32")
        return _packed(call, winograd, filtering, weight.constant)
    _guard(call, conv2d, problem)
    return _packed(call, conv2d, problem, weight.constant)


def _guard(call: Call, kernel: Any, problem: Any) -> None:
    """Let a kernel know which weights are risky."""
    if not problem.operand.is_guarded:
        return
    values = call["weight"].constant
    call.scope.guards(
        f"{stored(arguments(call.node)['weight']).target} {problem} guards",
        kernel.guards_shape(problem),
        lambda: guards_of(problem.operand, kernel.pack_weight(problem, values)),
    )


def _transposed(call: Call, vector: Vector) -> Anchor | None:
    weight, layout = call["weight"], call.layout_of("input")
    if weight.constant is None or not call.layout.block or layout is None:
        return None
    problem = conv_transpose2d.ConvTranspose2d(
        in_channels=weight.shape[0],
        out_channels=weight.shape[1] * call["groups"],
        groups=call["groups"],
        output_padding=tuple(call["output_padding"]),
        in_block=layout.block,
        out_block=call.layout.block,
        operand=_dot_operand(call, vector),
        **_geometry(call),
    )
    return _packed(call, conv_transpose2d, problem, weight.constant)


def _dot_operand(call: Call, vector: Vector, kernel: Any = None, problem: Any = None) -> DotOperand:
    """What the steps of a contraction multiply; for an integer layer, what its kernel's problem allows."""
    if is_integer_layer(call):
        weight = call["weight"].constant
        return choose_operand(
            call, vector, lambda operand: kernel.pack_weight(replace(problem, operand=operand), weight)
        )
    return BFLOAT16 if multiplies_pairs(call.node) else FLOAT32


def _geometry(call: Call) -> dict[str, Any]:
    """What every convolution over images is described by."""
    image = arguments(call.node)["input"]
    n, _, height, width = spec(stored(image)).shape
    ph, pw = call["padding"]
    top, left, bottom, right = zero_edges(image) or (0, 0, 0, 0)
    return {
        "batch": n,
        "height": height,
        "width": width,
        "kernel": tuple(call["weight"].shape[2:]),
        "stride": tuple(call["stride"]),
        "padding": (ph + top, pw + left, ph + bottom, pw + right),
        "dilation": tuple(call["dilation"]),
    }


def _packed(call: Call, kernel: Any, problem: Any, values: np.ndarray) -> Anchor:
    """A kernel over a blocked operand and packed weights, with a bias along the channels."""
    packed = _packed_weight(call, "weight", kernel, problem, values)
    result = kernel.compute(problem, call.tensor("input"), packed)
    total = call.scope.leaf(result, call.shape, call.layout)
    array = with_correction(call, total, getattr(problem, "operand", FLOAT32), 1)
    return Anchor(array, KernelSchedule(kernel.schedule, problem))


def _packed_weight(call: Call, name: str, kernel: Any, problem: Any, values: np.ndarray) -> Any:
    """The weight as the kernel reads it: stored so, or made of what is stored when the model is loaded."""
    key = f"{stored(arguments(call.node)[name]).target} {problem}"
    shape, packed = kernel.packed_shape(problem), getattr(problem, "operand", FLOAT32).packed

    def pack(weight: np.ndarray) -> np.ndarray:
        return np.asarray(kernel.pack_weight(problem, weight))

    codes = call[name].codes
    if codes is not None and packed == "float32":
        expanded = decoding.prepared(key, codes, shape, pack)
        if kernel is winograd:
            return _prepared_weight(call, problem, f"{key} filtered", expanded)
        return call.scope.prepared(shape, packed, expanded)
    if kernel is winograd:
        return _prepared_weight(call, problem, f"{key} prepared", Constant(key, lambda: pack(values)))
    narrow = widened_weight(call, key, getattr(problem, "operand", FLOAT32), shape, lambda: pack(values))
    if narrow is not None:
        return call.scope.prepared(shape, packed, narrow)
    return call.scope.packed(key, shape, packed, lambda: pack(values))


def _prepared_weight(call: Call, problem: winograd.Winograd, key: str, plain: Constant | Prepared) -> Any:
    """Weights that lie like those of the plain convolution, and are transformed when the model is loaded."""
    source = Parameter(te.placeholder(winograd.packed_shape(problem), "float32", "stored"), plain)
    prepared = Prepared(key, (source,), winograd.prepare_function(problem), AsWritten())
    return call.scope.prepared(winograd.prepared_shape(problem), "float32", prepared)


def _linear(call: Call, vector: Vector) -> Anchor | None:
    if len(call["weight"].shape) != 2 or call["weight"].constant is None:
        return None
    anchor = _rows_times(call, ("input", "weight"), call["weight"].constant, vector)
    if anchor is None:
        return None
    assert isinstance(anchor.schedule, KernelSchedule)
    return replace(anchor, array=with_correction(call, anchor.array, anchor.schedule.problem.operand, -1))


def _matmul(call: Call, vector: Vector) -> Anchor | None:
    left, right = call["self"].shape, call["other"].shape
    if call["self"].constant is not None or len(left) < 2 or len(right) < 2:
        return None
    if call["other"].constant is not None:
        known = len(right) == 2
        return _rows_times(call, ("self", "other"), call["other"].constant.T, vector) if known else None
    is_product = is_call(call.node, integer.matmul)
    if left[:-2] != right[:-2] or not (is_product or call["self"].dtype == call["other"].dtype):
        return None
    batch, (m, k), n = math.prod(left[:-2]), left[-2:], right[-1]
    problem = batch_matmul.BatchMatmul(batch, m, n, k, block=vector.lanes, operand=_dot_operand(call, vector))
    if is_product:
        pairs = pairs_for(call, vector, call["zero_self"]), pairs_for(call, vector, call["zero_other"])
        problem = replace(problem, operand=pairs[0], panel_operand=pairs[1])
    result = batch_matmul.compute(problem, call.tensor("self", (batch, m, k)), call.tensor("other", (batch, k, n)))
    return _plain(call, result, (batch, m, n), KernelSchedule(batch_matmul.schedule, problem))


def _rows_times(call: Call, names: tuple[str, str], values: np.ndarray, vector: Vector) -> Anchor | None:
    """All rows of an operand times weights ``[N, K]``."""
    data = call[names[0]]
    if data.constant is not None:
        return None
    n, k = values.shape
    m = math.prod(data.shape[:-1])
    problem = matmul.Matmul(m, n, k, vector.lanes)
    problem = replace(problem, operand=_dot_operand(call, vector, matmul, problem))
    _guard(call, matmul, problem)
    packed = _packed_weight(call, names[1], matmul, problem, values)
    result = matmul.compute(problem, call.tensor(names[0], (m, k)), packed)
    return _plain(call, result, (m, n), KernelSchedule(matmul.schedule, problem))


def _plain(call: Call, result: Any, shape: tuple[int, ...], schedule: ScheduleFunction) -> Anchor:
    """A kernel that writes the plain result under a shape of its own."""
    total = reshape_array(call.scope, call.scope.leaf(result, shape, PLAIN), call.shape)
    return Anchor(total, schedule, shape)


def _pool(call: Call, vector: Vector) -> Anchor | None:
    if len(call.shape) != 4 or call.layout_of("self") != call.layout:
        return None
    return _pooled(
        call,
        "self",
        kind="max" if is_call(call.node, aten.max_pool2d.default) else "avg",
        kernel=tuple(call["kernel_size"]),
        stride=tuple(call["stride"]),
        dilation=tuple(call.operands.get("dilation", (1, 1))),
        count_include_pad=call.operands.get("count_include_pad", True),
        divisor=call.operands.get("divisor_override"),
    )


def _sum_pool(call: Call, vector: Vector) -> Anchor | None:
    if call.layout_of("q") != call.layout:
        return None
    kernel, stride = tuple(call["kernel_size"]), tuple(call["stride"])
    return _pooled(call, "q", kind="sum", kernel=kernel, stride=stride, zero_point=call["zero_point"])


def _pooled(call: Call, name: str, **how: Any) -> Anchor:
    """The pooling kernel over the operand of that name."""
    n, c, height, width = call[name].shape
    ph, pw = call["padding"]
    problem = pool2d.Pool2d(
        batch=n,
        channels=c,
        height=height,
        width=width,
        out_height=call.shape[2],
        out_width=call.shape[3],
        padding=(ph, pw, ph, pw),
        block=call.layout.block,
        **how,
    )
    array = call.scope.leaf(pool2d.compute(problem, call.tensor(name)), call.shape, call.layout)
    return Anchor(array, KernelSchedule(pool2d.schedule, problem))


_FINDERS: dict[Any, Callable[[Call, Vector], Anchor | None]] = {
    aten.conv2d.default: _convolution,
    aten.conv_transpose2d.input: _transposed,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    integer.conv2d: _convolution,
    integer.linear: _linear,
    integer.matmul: _matmul,
    integer.sum_pool2d: _sum_pool,
    aten.max_pool2d.default: _pool,
    aten.avg_pool2d.default: _pool,
}
