"""Fourier transforms of lines."""

from __future__ import annotations

from lvc.compiler.load.normalise.spectral import dft
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Value

_AXIS_OPERAND = 20  # the opset from which the axis is an operand


@converts("DFT")
def transform(call: Call) -> Value:
    """Real and imaginary parts are the last axis; before opset 20 the axis is an attribute."""
    rank, parts = call.rank(), call.shape()[-1]
    inverse, onesided = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    if call.opset < _AXIS_OPERAND:
        (axis,) = call.places([int(call.attribute("axis", 1))])
    else:
        (axis,) = call.places([int(call.number(2, "axis", -2))])
    if axis == rank - 1 or parts not in (1, 2):
        raise ValueError(f"axis {axis} of {rank} axes, of which the last holds {parts} parts of a number, is none")
    if onesided and inverse == (parts == 1):
        raise ValueError("a one-sided transform is of real numbers, and its inverse of complex ones")
    size = call.shape()[axis]
    length = int(call.number(1, "length", 2 * (size - 1) if inverse and onesided else size))
    if length < 1:
        raise ValueError(f"the length is {length}")
    result: Value = by_meaning(call, dft, call[0], axis, length, inverse=inverse, onesided=onesided)
    return result
