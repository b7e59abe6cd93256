"""Operators on integers that ONNX Runtime writes in place of others: dequantise, the other one, quantise.

Source: the "com.microsoft" domain of ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lvc.compiler.load.onnx_importer.call import CONVERTERS, Call, converts
from lvc.compiler.load.onnx_importer.ops.quantise import dequantised, quantisation_operands, quantised
from lvc.compiler.load.onnx_importer.values import Unsupported, Value, dtype_of

_MUL = torch.ops.aten.mul.Tensor
_BINARY = {"com.microsoft.QLinearAdd": "Add", "com.microsoft.QLinearMul": "Mul"}
_UNARY = {
    "com.microsoft.QLinearSigmoid": "Sigmoid",
    "com.microsoft.QLinearLeakyRelu": "LeakyRelu",
    "com.microsoft.QLinearAveragePool": "AveragePool",
    "com.microsoft.QLinearGlobalAveragePool": "GlobalAveragePool",
    "com.microsoft.QLinearSoftmax": "Softmax",
}


@converts(*_UNARY)
def unary(call: Call) -> Value:
    """Operands: data, scale, zero point; scale and zero point of the result."""
    if call.attribute("channels_last", 0):
        raise Unsupported("has its channels last")
    if call.op.endswith("Softmax"):
        axis = call.attribute("axis", -1)
        call = replace(call, opset=int(call.attribute("opset", call.opset)), attributes={"axis": axis})
    return _rounded(call, _computed(call, _UNARY, [_real(call, 0)]), 3)


@converts(*_BINARY)
def binary(call: Call) -> Value:
    """Operands: twice data, scale, zero point; scale and zero point of the result."""
    return _rounded(call, _computed(call, _BINARY, [_real(call, 0), _real(call, 3)]), 6)


@converts("com.microsoft.QLinearConcat")
def concatenated(call: Call) -> Value:
    """Operands: scale and zero point of the result; data, scale, zero point of each part."""
    parts = [_real(call, place) for place in range(2, len(call), 3)]
    return _rounded(call, _computed(call, {call.op: "Concat"}, parts), 0)


@converts("com.microsoft.QGemm")
def product(call: Call) -> Value:
    """Operands: twice data, scale, zero point; a bias in steps of both; scale and zero point of the result, or none."""
    a, b, bias = _real(call, 0), _real(call, 3, axis=0 if call.attribute("transB", 0) else 1), call.get(6)
    if bias is not None:
        step = call.emit(_MUL, call.reshape(call[1], []), call.reshape(call[4], [-1]))
        bias = call.emit(_MUL, call.cast(bias, dtype_of(step)), step)
    found = _computed(call, {call.op: "Gemm"}, [a, b, bias])
    return found if call.get(7) is None else _rounded(call, found, 7)


def _computed(call: Call, names: dict[str, str], operands: Sequence[Value | None]) -> Value:
    result = CONVERTERS[names[call.op]](replace(call, op=names[call.op], operands=list(operands)))
    assert isinstance(result, Value)
    return result


def _real(call: Call, place: int, axis: int = 0) -> Value:
    """What the operand at a place stands for, by the scale and the zero point behind it."""
    x = call[place]
    return dequantised(call, x, quantisation_operands(call, dtype_of(x), place + 1, place + 2, x, axis=axis))


def _rounded(call: Call, value: Value, place: int) -> Value:
    """A result in integers, by the scale and the zero point at a place."""
    return quantised(call, value, quantisation_operands(call, call.dtype(place + 1), place, place + 1, value, axis=0))
