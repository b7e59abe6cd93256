"""Operators that ONNX Runtime's optimiser makes of several, opened up again into those.

Source: the "com.microsoft" domain of ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lvc.compiler.load.onnx_importer.call import CONVERTERS, Call, converts
from lvc.compiler.load.onnx_importer.ops.arithmetic import added
from lvc.compiler.load.onnx_importer.ops.contraction import multiplied
from lvc.compiler.load.onnx_importer.values import Unsupported, Value

aten = torch.ops.aten

_CLIP_OPERANDS = 11  # the opset from which the limits of Clip are operands
_ACTIVATIONS = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activations that are fused, and their parameters in the order of ``activation_params``."""


@converts("com.microsoft.FusedConv")
def convolution(call: Call) -> Value:
    """A convolution, a value that is added, and an activation."""
    result = _by(call, "Conv", [call[0], call[1], call.get(2)])
    addend = call.get(3)
    result = result if addend is None else added(call, result, addend)
    return _activated(call, result, [float(value) for value in call.attribute("activation_params") or ()])


@converts("com.microsoft.FusedGemm")
def linear(call: Call) -> Value:
    """A product, and an activation."""
    result = _by(call, "Gemm", [call[0], call[1], call.get(2)])
    given = (call.attribute(f"activation_{name}") for name in ("alpha", "beta"))
    return _activated(call, result, [float(value) for value in given if value is not None])


@converts("com.microsoft.FusedMatMul")
def product(call: Call) -> Value:
    """A product of matrices that may be transposed, times a number."""
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        raise Unsupported("moves the batch of its matrices behind their rows")
    a, b = (_turned(call, i) if call.attribute(name, 0) else call[i] for i, name in enumerate(("transA", "transB")))
    found, alpha = multiplied(call, a, b), float(call.attribute("alpha", 1.0))
    return found if alpha == 1.0 else call.emit(aten.mul.Tensor, found, alpha)


def _turned(call: Call, place: int) -> Value:
    rank = call.rank(place)
    return call[place] if rank == 1 else call.permute(call[place], [*range(rank - 2), rank - 1, rank - 2])


@converts("com.microsoft.QuickGelu")
def quick_gelu(call: Call) -> Value:
    """x * sigmoid(alpha x)."""
    alpha = float(call.attribute("alpha", 1.702))
    if alpha == 1.0:
        return call.emit(aten.silu.default, call[0])
    gate = call.emit(aten.sigmoid.default, call.emit(aten.mul.Tensor, call[0], alpha))
    return call.emit(aten.mul.Tensor, call[0], gate)


@converts("com.microsoft.Gelu", "com.microsoft.BiasGelu", "com.microsoft.FastGelu")
def gelu(call: Call) -> Value:
    """Of a sum where there is a bias; FastGelu is the form by tanh."""
    bias = call.get(1)
    x = call[0] if bias is None else added(call, call[0], bias)
    return call.emit(aten.gelu.default, x, approximate="tanh" if call.op.endswith("FastGelu") else "none")


@converts("com.microsoft.BiasAdd")
def biased(call: Call) -> Value:
    """x plus a bias plus what was skipped."""
    return added(call, added(call, call[0], call[1]), call[2])


@converts("com.microsoft.SkipLayerNormalization")
def normalised_sum(call: Call) -> list[Value]:
    """The layer normalisation of x, what was skipped and a bias; the fourth result is their sum."""
    if call.reads(1) or call.reads(2):
        raise Unsupported("is asked for its statistics")
    total, bias = added(call, call[0], call[1]), call.get(4)
    total = total if bias is None else added(call, total, bias)
    epsilon = float(call.attribute("epsilon", 1e-12))
    width = [call.shape()[-1]]
    made = call.emit(aten.layer_norm.default, total, width, call[2], call.get(3), epsilon)
    return [made, made, made, total]


def _by(call: Call, op: str, operands: Sequence[Value | None], attributes: Mapping[str, Any] | None = None) -> Value:
    given = call.attributes if attributes is None else attributes
    result = CONVERTERS[op](replace(call, op=op, operands=list(operands), attributes=given))
    assert isinstance(result, Value)
    return result


def _activated(call: Call, x: Value, parameters: Sequence[float]) -> Value:
    name = str(call.attribute("activation", ""))
    if not name:
        return x
    if name not in _ACTIVATIONS:
        raise Unsupported(f"has {name} fused into it, which has no converter")
    options = dict(zip(_ACTIVATIONS[name], parameters, strict=False))
    call = replace(call, opset=min(call.opset, _CLIP_OPERANDS - 1)) if name == "Clip" else call
    return _by(call, name, [x], options)
