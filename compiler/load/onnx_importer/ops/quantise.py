"""Quantisation. A value that is quantised and dequantised becomes ATen's fake quantisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lvc.compiler.load.onnx_importer.call import Call, Converter, converts
from lvc.compiler.load.onnx_importer.ops.contraction import multiplied
from lvc.compiler.load.onnx_importer.ops.convolution import convolved
from lvc.compiler.load.onnx_importer.values import (
    Constant,
    Unsupported,
    Value,
    constant,
    dtype_of,
    shape_of,
    torch_dtype,
)

aten = torch.ops.aten

_MOVES = frozenset({"MaxPool", "GlobalMaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"})


@dataclass(frozen=True, eq=False)
class QuantisationOperands:
    """The numbers ``scale * (q - zero)`` for q of an integer type; one scale, or one for each place of an axis."""

    scale: Value
    zero: Value
    dtype: torch.dtype
    axis: int
    rank: int

    @property
    def is_per_axis(self) -> bool:
        return torch.Size(shape_of(self.scale)).numel() > 1

    @property
    def bounds(self) -> tuple[int, int]:
        limits = torch.iinfo(self.dtype)
        return limits.min, limits.max

    def spread(self, call: Call, value: Value) -> Value:
        """Shape a scale or zero point so that it broadcasts along the axis."""
        if not self.is_per_axis:
            return call.reshape(value, [])
        shape = [1] * self.rank
        shape[self.axis] = -1
        return call.emit(aten.reshape.default, value, shape)

    def is_same(self, other: QuantisationOperands) -> bool:
        if (self.dtype, self.axis if self.is_per_axis else 0) != (other.dtype, other.axis if other.is_per_axis else 0):
            return False
        pairs = ((self.scale, other.scale), (self.zero, other.zero))
        return all(
            a is b or (isinstance(a, Constant) and isinstance(b, Constant) and torch.equal(a.tensor, b.tensor))
            for a, b in pairs
        )


def quantisation_operands(
    call: Call, dtype: torch.dtype, scale: int = 1, zero: int = 2, x: Value | None = None, *, axis: int | None = None
) -> QuantisationOperands:
    """Return those of a value, the first operand if none is given, by the places of its scale and zero point.

    The axis of several scales is the node's attribute unless one is given.
    """
    x = call[0] if x is None else x
    if call.attribute("block_size", 0):
        raise Unsupported("quantises in blocks")
    if dtype not in (torch.int8, torch.uint8, torch.int16, torch.int32):
        raise Unsupported(f"quantises to {dtype}")
    rank = len(shape_of(x))
    axis = int(call.attribute("axis", 1)) if axis is None else axis
    scales = torch.Size(shape_of(call[scale])).numel()
    if scales > 1 and scales != shape_of(x)[call.places([axis], rank)[0]]:
        raise ValueError(f"{scales} scales along axis {axis} of {list(shape_of(x))}")
    zeros = call.get(zero)
    if zeros is None:
        zeros = constant(torch.zeros(shape_of(call[scale]), dtype=dtype), dtype)
    return QuantisationOperands(call[scale], zeros, dtype, axis % max(rank, 1), rank)


def quantised(call: Call, x: Value, by: QuantisationOperands) -> Value:
    """clamp(round(x / scale) + zero), in integers; what it was is remembered for `dequantised`."""
    scale = call.cast(by.scale, torch.float32)
    wide = call.cast(x, torch.float32)
    steps = call.emit(aten.round.default, call.emit(aten.div.Tensor, wide, by.spread(call, scale)))
    zero = by.spread(call, call.cast(by.zero, torch.float32))
    moved = call.emit(aten.clamp.default, call.emit(aten.add.Tensor, steps, zero), *map(float, by.bounds))
    result = call.cast(moved, by.dtype)
    if isinstance(result, torch.fx.Node):
        call.emitter.quantised[result] = (x, by)
    return result


def dequantised(call: Call, q: Value, by: QuantisationOperands) -> Value:
    """scale * (q - zero); fake quantisation where q is a stored weight, or was just made with the same parameters."""
    dtype = dtype_of(by.scale)
    if isinstance(q, torch.fx.Node) and q in call.emitter.quantised:
        x, made = call.emitter.quantised[q]
        if made.is_same(by) and dtype_of(x) == dtype and _can_fake(by):
            return _fake(call, x, by)
    wide = call.emit(aten.sub.Tensor, call.cast(q, torch.float32), by.spread(call, call.cast(by.zero, torch.float32)))
    scaled = call.emit(aten.mul.Tensor, wide, by.spread(call, call.cast(by.scale, torch.float32)))
    result = call.cast(scaled, dtype)
    if isinstance(q, Constant) and isinstance(result, Constant) and q.tensor.numel() > 1 and _can_fake(by):
        return _fake(call, Constant(result.tensor, q.name, trainable=True), by)
    return result


def _can_fake(by: QuantisationOperands) -> bool:
    return (
        isinstance(by.scale, Constant)
        and isinstance(by.zero, Constant)
        and by.dtype in (torch.int8, torch.uint8)
        and by.scale.tensor.dtype is torch.float32
    )


def _fake(call: Call, x: Value, by: QuantisationOperands) -> Value:
    assert isinstance(by.scale, Constant)
    assert isinstance(by.zero, Constant)
    if not by.is_per_axis:
        scale, zero = float(by.scale.tensor.item()), int(by.zero.tensor.item())
        return call.emit_unfolded(aten.fake_quantize_per_tensor_affine.default, x, scale, zero, *by.bounds)
    scales = Constant(by.scale.tensor.flatten(), by.scale.name)
    zeros = Constant(by.zero.tensor.flatten().to(torch.int32), by.zero.name)
    return call.emit_unfolded(aten.fake_quantize_per_channel_affine.default, x, scales, zeros, by.axis, *by.bounds)


def keeps_parameters(call: Call) -> bool:
    """Whether a node only moves or selects integers that were just made with one scale."""
    x = call.get(0)
    if call.op not in _MOVES or not isinstance(x, torch.fx.Node) or x not in call.emitter.quantised:
        return False
    _, by = call.emitter.quantised[x]
    return _can_fake(by) and not by.is_per_axis


def on_real_numbers(call: Call, converter: Converter) -> Value:
    """Do a node's work on what integers stand for, so that their scale stays known."""
    q = call[0]
    assert isinstance(q, torch.fx.Node)
    _, by = call.emitter.quantised[q]
    result = converter(replace(call, operands=[dequantised(call, q, by), *call.operands[1:]]))
    return quantised(call, result if isinstance(result, Value) else result[0], by)


@converts("QuantizeLinear")
def quantise(call: Call) -> Value:
    dtype = torch.uint8
    if call.get(2) is not None:
        dtype = call.dtype(2)
    elif call.attribute("output_dtype", 0):
        dtype = torch_dtype(int(call.attribute("output_dtype")))
    return quantised(call, call[0], quantisation_operands(call, dtype))


@converts("DequantizeLinear")
def dequantise(call: Call) -> Value:
    found = dequantised(call, call[0], quantisation_operands(call, call.dtype()))
    wanted = int(call.attribute("output_dtype", 0))
    return call.cast(found, torch_dtype(wanted)) if wanted else found


@converts("QLinearConv")
def quantised_convolution(call: Call) -> Value:
    """The convolution of the dequantised operands, quantised; the bias has the product of both scales."""
    x = dequantised(call, call[0], quantisation_operands(call, call.dtype(), 1, 2))
    weight = dequantised(call, call[3], quantisation_operands(call, call.dtype(3), 4, 5, call[3], axis=0))
    bias = call.get(8)
    if bias is not None:
        step = call.emit(aten.mul.Tensor, call.reshape(call[4], [-1]), call.reshape(call[1], []))
        bias = call.emit(aten.mul.Tensor, call.cast(bias, torch.float32), step)
    return quantised(call, convolved(call, x, weight, bias), quantisation_operands(call, call.dtype(7), 6, 7))


@converts("QLinearMatMul")
def quantised_matrix_product(call: Call) -> Value:
    a = dequantised(call, call[0], quantisation_operands(call, call.dtype(0), 1, 2))
    b = dequantised(call, call[3], quantisation_operands(call, call.dtype(3), 4, 5, call[3]))
    return quantised(call, multiplied(call, a, b), quantisation_operands(call, call.dtype(7), 6, 7))
