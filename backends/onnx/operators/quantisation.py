"""Simulated quantisation, as QuantizeLinear and DequantizeLinear. Stored tensors are written in integers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, origin, spec
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK, fit_int8, nearest
from lvc.compiler.ir.operators.coded_weights import DECODE, unpack
from lvc.compiler.ir.operators.uncalibrated import HELP, UNCALIBRATED, WHY_NOT

_RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(1 << 15), (1 << 15) - 1)}


def per_tensor(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    scale, zero = torch.tensor(args["scale"]), torch.tensor(args["zero_point"])
    return _quantise(w, node, scale, zero, None)


def per_channel(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    scale, zero = w.stored(args["scale"]), w.stored(args["zero_point"])
    if scale is None or zero is None:
        raise w.refuse("its scales or zero points are computed in the graph")
    return _quantise(w, node, scale, zero, args["axis"])


def _quantise(w: GraphWriter, node: Node, scale: torch.Tensor, zero: torch.Tensor, axis: int | None) -> str:
    args = arguments(node)
    operand, low, high = args["self"], args["quant_min"], args["quant_max"]
    dtype = _storage(w, low, high)
    floating = spec(node).dtype
    parameters = (w.constant(scale.detach(), floating), w.constant(zero.detach(), dtype))
    stored = w.stored(operand)
    if stored is not None:
        shape = [-1 if dim == axis else 1 for dim in range(stored.ndim)] if axis is not None else []
        steps = (stored.detach() * (1 / scale).reshape(shape)).round() + zero.reshape(shape)
        steps = steps.detach().clamp(low, high)
        integers = _stored_integers(w, steps) if dtype is torch.int8 else w.constant(steps, dtype)
    else:
        x = w.name(operand)
        if (low, high) != _RANGES[dtype]:
            x = _clip(w, x, [(bound - zero) * scale for bound in (low, high)], axis, node)
        integers = w.emit("QuantizeLinear", x, *parameters, axis=axis)
    return w.emit("DequantizeLinear", integers, *parameters, axis=axis)


def _storage(w: GraphWriter, low: int, high: int) -> torch.dtype:
    """The smallest type that holds a range of integers."""
    for dtype, (least, most) in _RANGES.items():
        if least <= low and high <= most and (dtype is not torch.int16 or w.opset >= 21):
            return dtype
    raise w.refuse(f"no type of this opset holds integers from {low} to {high}")


def _clip(w: GraphWriter, x: str, bounds: list[torch.Tensor], axis: int | None, node: Node) -> str:
    """Keep values inside the integers that are used, when they are narrower than the type."""
    shape = [1] * len(spec(node).shape)
    if axis is not None:
        shape[axis] = -1
    low, high = (w.constant(bound.detach().reshape(shape), spec(node).dtype) for bound in bounds)
    return w.emit("Min", w.emit("Max", x, low), high)


def uncalibrated(w: GraphWriter, node: Node) -> str:
    raise CompileError(f"'{node.name}' cannot be written as ONNX", where=origin(node), why=WHY_NOT, help=HELP)


def codebook(w: GraphWriter, node: Node) -> str:
    """A stored weight that is simulated by a codebook."""
    args = arguments(node)
    stored, values, scale = (w.stored(args[name]) for name in ("self", "values", "scale"))
    if stored is None or values is None or scale is None:
        raise w.refuse("its weight or its codebook is computed in the graph")
    codes = nearest(stored.detach().reshape(scale.numel(), -1), values, scale.flatten())
    return _of_codebook(w, codes.flatten(), values, scale, stored.shape)


def decode(w: GraphWriter, node: Node) -> str:
    """A weight in few bits."""
    args = arguments(node)
    codes, values, scale = (w.stored(args[name]) for name in ("codes", "values", "scale"))
    if codes is None or values is None or scale is None:
        raise w.refuse("its codes are computed in the graph")
    return _of_codebook(w, unpack(codes, args["bits"], spec(node).elements), values, scale, args["shape"])


def _of_codebook(
    w: GraphWriter, codes: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, shape: Sequence[int]
) -> str:
    """Where the values are integers as DequantizeLinear; else by their table."""
    rows = list(shape) if scale.shape[1] == 1 else [scale.numel(), len(codes) // scale.numel()]
    codes = codes.reshape(rows)
    if fit_int8(values):
        integers = _looked_up(w, codes, values.to(torch.int8)) or _stored_integers(w, values[codes.int()])
        found = _dequantised(w, integers, scale.flatten(), 0)
    else:
        places = w.convert(w.constant(codes.to(torch.uint8)), torch.int32)
        table = w.emit("Gather", w.constant(values.detach()), places)
        found = w.emit("Mul", table, w.constant(scale.detach().reshape(-1, *[1] * (len(rows) - 1))))
    return found if rows == list(shape) else w.reshape(found, shape)


def _looked_up(w: GraphWriter, codes: torch.Tensor, values: torch.Tensor) -> str | None:
    """Entries of a table by codes of 4 bits, where that takes fewer bytes than the entries themselves."""
    if w.opset < 21 or len(values) > 16 or _fit_int4(values) or codes.numel() < 64:
        return None
    table = torch.cat([values, values[-1:].expand(16 - len(values))])
    places = w.convert(w.int4(codes), torch.int32)  # a negative index counts from the end of the 16 entries
    return w.emit("Gather", w.constant(table), places)


def _stored_integers(w: GraphWriter, integers: torch.Tensor) -> str:
    """Stored integers as int8, in a file of 4 bits each if they and the opset allow it.

    What the conversion gives is known when a runtime loads the model. So it finds the weights in int8 which its integer
    kernels take; DequantizeLinear of 4 bits makes ONNX Runtime and OpenVINO compute convolutions in float32.
    """
    if w.opset >= 21 and _fit_int4(integers):
        return w.convert(w.int4(integers), torch.int8)
    return w.constant(integers, torch.int8)


def _fit_int4(integers: torch.Tensor) -> bool:
    return float(integers.min()) >= -8 and float(integers.max()) <= 7


def _dequantised(w: GraphWriter, integers: str, scale: torch.Tensor, axis: int | None) -> str:
    """Integers about zero times their scale."""
    zero = w.constant(torch.zeros(scale.shape, dtype=torch.int8))
    return w.emit("DequantizeLinear", integers, w.constant(scale.detach()), zero, axis=axis)


WRITERS = {
    DECODE: decode,
    FAKE_QUANTIZE_CODEBOOK: codebook,
    aten.fake_quantize_per_tensor_affine.default: per_tensor,
    aten.fake_quantize_per_channel_affine.default: per_channel,
    UNCALIBRATED: uncalibrated,
}
