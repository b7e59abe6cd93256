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
from lvc.compiler.load.onnx_importer.rules import by_meaning
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


@converts("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
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


@converts("SimplifiedLayerNormalization")
def simplified(call: Call) -> list[Value]:
    """x over the root of its mean square, times a scale; ONNX Runtime has it in the standard's domain."""
    return [_by(call, "RMSNormalization", [call[0], call[1]])]


@converts("com.microsoft.SkipSimplifiedLayerNormalization")
def simplified_sum(call: Call) -> list[Value]:
    """The same of x, what was skipped and a bias; the fourth result is their sum."""
    if call.reads(1) or call.reads(2):
        raise Unsupported("is asked for its statistics")
    total, bias = added(call, call[0], call[1]), call.get(3)
    total = total if bias is None else added(call, total, bias)
    made = _by(call, "RMSNormalization", [total, call[2]], {"epsilon": float(call.attribute("epsilon", 1e-12))})
    return [made, made, made, total]


@converts("com.microsoft.MatMulIntegerToFloat")
def scaled_product(call: Call) -> Value:
    """The product of two matrices of integers, times their scales, plus a bias."""
    made = _by(call, "MatMulInteger", [call[0], call[1], call.get(4), call.get(5)])
    scaled = call.emit(aten.mul.Tensor, call.cast(made, torch.float32), call[2])
    scaled = call.emit(aten.mul.Tensor, scaled, call[3])
    bias = call.get(6)
    return scaled if bias is None else added(call, scaled, bias)


@converts("com.microsoft.DynamicQuantizeMatMul")
def dynamic_product(call: Call) -> Value:
    """A matrix is quantised by its range and multiplied with one of integers, B with its scale and zero point."""
    x, scale, zero = by_meaning(call, _quantised, call[0])
    operands = [x, call[1], scale, call[2], zero, call.get(3), call.get(4)]
    return _by(call, "com.microsoft.MatMulIntegerToFloat", operands)


def _quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bytes, their scale and zero point, as ONNX's DynamicQuantizeLinear defines them."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round().clamp(0, 255)
    made = ((x / scale).round() + zero).clamp(0, 255)
    return made.to(torch.uint8), scale, zero.to(torch.uint8)


@converts("com.microsoft.RotaryEmbedding")
def rotary(call: Call) -> Value:
    """Pairs of elements of each head are turned by angles that follow their places."""
    if call.attribute("is_packed_batching", 0):
        raise Unsupported("packs sequences of different lengths")
    interleaved, part = bool(call.attribute("interleaved", 0)), int(call.attribute("rotary_embedding_dim", 0))
    heads, scale = int(call.attribute("num_heads", 0)), float(call.attribute("scale", 1.0))
    if scale != 1.0:
        raise Unsupported("scales its places")
    if call.rank() == 3 and not heads and part:
        raise ValueError("num_heads is missing")

    def turned(x: torch.Tensor, places: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        batch, length = (x.shape[0], x.shape[2]) if x.dim() == 4 else x.shape[:2]
        at = places if places.dim() == 2 else places + torch.arange(length).expand(batch, length)
        cos, sin = (table[at][:, :, None] for table in (cosines, sines))
        each = 2 * cosines.shape[1]
        width = x.shape[-1] // heads if heads else each
        parts = x.transpose(1, 2) if x.dim() == 4 else x.reshape(batch, length, -1, width)
        head, rest = parts[..., :each], parts[..., each:]
        first, second = (head[..., 0::2], head[..., 1::2]) if interleaved else head.chunk(2, -1)
        pair = first * cos - second * sin, first * sin + second * cos
        made = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
        made = torch.cat([made, rest], -1)
        return made.transpose(1, 2) if x.dim() == 4 else made.flatten(2)

    result: Value = by_meaning(call, turned, *call.all())
    return result


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
