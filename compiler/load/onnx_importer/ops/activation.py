"""Activations."""

from __future__ import annotations

import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.values import Value, constant, dtype_of, shape_of

aten = torch.ops.aten

_PLAIN = {
    "Relu": aten.relu.default,
    "Sigmoid": aten.sigmoid.default,
    "Tanh": aten.tanh.default,
    "HardSwish": aten.hardswish.default,
    "Mish": aten.mish.default,
}
_LARGEST = torch.finfo(torch.float32).max
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@converts(*_PLAIN)
def plain(call: Call) -> Value:
    return call.emit(_PLAIN[call.op], call[0])


@converts("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    return call.emit(aten.leaky_relu.default, call[0], call.attribute("alpha", 0.01))


@converts("PRelu")
def prelu(call: Call) -> Value:
    """One slope a channel is ATen's prelu; a slope of any other shape is broadcast."""
    x, slope = call[0], call[1]
    call.check_fits(slope, shape_of(x))
    shape, slopes = shape_of(x), shape_of(slope)
    full = (1,) * (len(shape) - len(slopes)) + slopes
    per_channel = len(shape) > 1 and all(size == 1 for axis, size in enumerate(full) if axis != 1)
    if call.dtype().is_floating_point and (per_channel or all(size == 1 for size in slopes)):
        return call.emit(aten.prelu.default, x, call.reshape(slope, [max(full, default=1)]))
    scaled = call.emit(aten.mul.Tensor, x, slope)
    return call.emit(aten.where.self, call.emit(aten.lt.Tensor, x, constant(0, call.dtype())), scaled, x)


@converts("Elu")
def elu(call: Call) -> Value:
    return call.emit(aten.elu.default, call[0], call.attribute("alpha", 1.0), 1.0, 1.0)


@converts("Selu")
def selu(call: Call) -> Value:
    alpha, gamma = call.attribute("alpha", _SELU_ALPHA), call.attribute("gamma", _SELU_GAMMA)
    return call.emit(aten.elu.default, call[0], alpha, gamma, 1.0)


@converts("Celu")
def celu(call: Call) -> Value:
    alpha = call.attribute("alpha", 1.0)
    return call.emit(aten.elu.default, call[0], alpha, 1.0, 1.0 / alpha)


@converts("ThresholdedRelu")
def thresholded_relu(call: Call) -> Value:
    above = call.emit(aten.gt.Tensor, call[0], constant(call.attribute("alpha", 1.0), call.dtype()))
    return call.emit(aten.where.self, above, call[0], constant(0.0, call.dtype()))


@converts("Softplus")
def softplus(call: Call) -> Value:
    return call.emit(aten.softplus.default, call[0], 1.0, 20.0)


@converts("Softsign")
def softsign(call: Call) -> Value:
    return call.emit(aten.div.Tensor, call[0], call.emit(aten.add.Tensor, call.emit(aten.abs.default, call[0]), 1.0))


@converts("HardSigmoid")
def hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return call.emit(aten.hardsigmoid.default, call[0])
    line = call.emit(aten.add.Tensor, call.emit(aten.mul.Tensor, call[0], alpha), beta)
    return call.emit(aten.clamp.default, line, 0.0, 1.0)


@converts("Gelu")
def gelu(call: Call) -> Value:
    return call.emit(aten.gelu.default, call[0], approximate=call.attribute("approximate", "none"))


@converts("Swish")
def swish(call: Call) -> Value:
    alpha = call.attribute("alpha", 1.0)
    if alpha == 1.0:
        return call.emit(aten.silu.default, call[0])
    gate = call.emit(aten.sigmoid.default, call.emit(aten.mul.Tensor, call[0], alpha))
    return call.emit(aten.mul.Tensor, call[0], gate)


@converts("Shrink")
def shrink(call: Call) -> Value:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    x, dtype = call[0], call.dtype()
    bias, lambd = call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
    zero = constant(0, dtype)
    high = call.emit(aten.gt.Tensor, x, constant(lambd, dtype))
    low = call.emit(aten.lt.Tensor, x, constant(-lambd, dtype))
    inner = call.emit(aten.where.self, high, call.cast(call.emit(aten.sub.Tensor, x, bias), dtype), zero)
    return call.emit(aten.where.self, low, call.cast(call.emit(aten.add.Tensor, x, bias), dtype), inner)


@converts("Clip")
def clip(call: Call) -> Value:
    """Bounds are attributes before opset 11, operands from then on."""
    if call.opset < 11:
        low, high = call.attribute("min", -_LARGEST), call.attribute("max", _LARGEST)
        if -low == high == _LARGEST:
            return call[0]
        return call.emit(aten.clamp.default, call[0], low, high)
    bounds = [call.get(1), call.get(2)]
    if all(bound is None for bound in bounds):
        return call[0]
    if all(bound is None or not isinstance(bound, torch.fx.Node) for bound in bounds):
        numbers = [None if bound is None else bound.tensor.item() for bound in bounds]  # type: ignore[union-attr]
        return call.emit(aten.clamp.default, call[0], *numbers)
    x = call[0]
    if bounds[0] is not None:
        x = call.emit(aten.maximum.default, x, bounds[0])
    return x if bounds[1] is None else call.emit(aten.minimum.default, x, bounds[1])


@converts("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call) -> Value:
    """Over one axis from opset 13 on; before, over all axes from ``axis`` on as if they were one."""
    shape = call.shape()
    if call.opset >= 13:
        return _softmax(call, call[0], call.axis(-1))
    axis = call.axis(1)
    if all(size == 1 for size in shape[axis + 1 :]):
        return _softmax(call, call[0], axis)
    outer = torch.Size(shape[:axis]).numel()
    flat = call.reshape(call[0], [outer, torch.Size(shape[axis:]).numel()])
    return call.reshape(_softmax(call, flat, 1), shape)


def _softmax(call: Call, x: Value, axis: int) -> Value:
    if call.op == "Softmax":
        return call.emit(aten.softmax.int, x, axis)
    if call.op == "LogSoftmax":
        return call.emit(aten.log_softmax.int, x, axis)
    shape = shape_of(x)
    place = [1] * len(shape)
    place[axis] = shape[axis]
    best = call.emit(aten.argmax.default, x, axis, True)
    hit = call.emit(aten.eq.Tensor, constant(torch.arange(shape[axis]).reshape(place)), best)
    return call.cast(hit, dtype_of(x))
