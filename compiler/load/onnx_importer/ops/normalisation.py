"""Normalisations: reduce, then rescale."""

from __future__ import annotations

from dataclasses import replace

import onnx
import torch

from lvc.compiler.load.onnx_importer.call import Call, converts
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


@converts("BatchNormalization")
def batch_norm(call: Call) -> list[Value]:
    """With running statistics. ONNX's momentum is the share that stays, ATen's the share that goes.

    Before opset 14 the number of results says whether the statistics are those of the batch, read or not.
    """
    if call.attribute("training_mode", 0) or any(call.outputs[1:]):
        raise Unsupported("is in training mode: it normalises by the statistics of its batch")
    if not call.attribute("spatial", 1):
        raise Unsupported("normalises every element on its own (spatial=0)")
    scale, bias, mean, variance = (call[index] for index in range(1, 5))
    mean, variance = _statistic(mean), _statistic(variance)
    dtypes = {dtype_of(value) for value in (call[0], scale, bias, mean, variance)}
    epsilon, momentum = call.attribute("epsilon", 1e-5), 1.0 - call.attribute("momentum", 0.9)
    if len(dtypes) > 1:
        return [_rescaled(call, [scale, bias, mean, variance], epsilon)]
    return [call.emit(aten.batch_norm.default, call[0], scale, bias, mean, variance, False, momentum, epsilon, False)]


def _statistic(value: Value) -> Value:
    return replace(value, trainable=False) if isinstance(value, Constant) else value


def _rescaled(call: Call, parameters: list[Value], epsilon: float) -> Value:
    """Normalise in the parameters' wider type."""
    wide = dtype_of(parameters[-1])
    shape = [-1] + [1] * (call.rank() - 2)
    scale, bias, mean, variance = (
        call.emit(aten.reshape.default, call.cast(value, wide), shape) for value in parameters
    )
    factor = call.emit(
        aten.mul.Tensor, scale, call.emit(aten.rsqrt.default, call.emit(aten.add.Tensor, variance, epsilon))
    )
    centred = call.emit(aten.sub.Tensor, call.cast(call[0], wide), mean)
    return call.cast(call.emit(aten.add.Tensor, call.emit(aten.mul.Tensor, centred, factor), bias), call.dtype())


@converts("InstanceNormalization")
def instance_norm(call: Call) -> Value:
    epsilon = call.attribute("epsilon", 1e-5)
    return call.emit(aten.instance_norm.default, call[0], call[1], call[2], None, None, True, 0.1, epsilon, False)


@converts("GroupNormalization")
def group_norm(call: Call) -> Value:
    """Scale and bias are one a group in opset 18, one a channel from opset 21 on."""
    groups, channels = int(call.attribute("num_groups")), call.shape()[1]
    scale, bias = call[1], call[2]
    if call.opset < 21:
        scale, bias = (_per_channel(call, value, groups, channels) for value in (scale, bias))
    return call.emit(aten.group_norm.default, call[0], groups, scale, bias, call.attribute("epsilon", 1e-5), False)


def _per_channel(call: Call, value: Value, groups: int, channels: int) -> Value:
    spread = call.emit(aten.expand.default, call.reshape(value, [groups, 1]), [groups, channels // groups])
    return call.emit(aten.reshape.default, spread, [channels])


@converts("LayerNormalization")
def layer_norm(call: Call) -> list[Value]:
    """Over all axes from ``axis`` on; mean and inverse deviation only if somebody reads them."""
    x, axis, epsilon = call[0], call.axis(-1), call.attribute("epsilon", 1e-5)
    inner = list(call.shape()[axis:])
    results = [_affine(call, aten.layer_norm.default, x, inner, epsilon)]
    if call.reads(1) or call.reads(2):
        dims = list(range(axis, call.rank()))
        mean = call.emit(aten.mean.dim, x, dims, True)
        centred = call.emit(aten.sub.Tensor, x, mean)
        variance = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, centred, centred), dims, True)
        deviation = call.emit(aten.rsqrt.default, call.emit(aten.add.Tensor, variance, epsilon))
        stash = torch_dtype(int(call.attribute("stash_type", onnx.TensorProto.FLOAT)))
        results += [call.cast(mean, stash), call.cast(deviation, stash)]
    return results


def _affine(call: Call, overload: object, x: Value, inner: list[int], epsilon: float) -> Value:
    scale: Value | None = call[1]
    bias = call.get(2)
    for value in (call[1], bias):
        if value is not None:
            call.check_fits(value, shape_of(x))
    if isinstance(scale, Constant) and (bias is None or isinstance(bias, Constant)):
        scale, bias = (_spread(call, value, inner) for value in (scale, bias))
    same = list(shape_of(scale)) == inner if scale is not None else True
    if same and (bias is None or list(shape_of(bias)) == inner):
        return call.emit(aten.layer_norm.default, x, inner, scale, bias, epsilon, False)
    x = call.emit(aten.layer_norm.default, x, inner, None, None, epsilon, False)
    x = call.emit(aten.mul.Tensor, x, scale)
    return x if bias is None else call.emit(aten.add.Tensor, x, bias)


def _spread(call: Call, value: Value | None, inner: list[int]) -> Value | None:
    """Broadcast a constant scale or bias to the normalised shape, if that is what it fits."""
    if value is None or list(shape_of(value)) == inner or len(shape_of(value)) > len(inner):
        return value
    return call.emit(aten.expand.default, value, inner)


@converts("RMSNormalization")
def rms_norm(call: Call) -> Value:
    """x / sqrt(mean(x^2) + epsilon) * scale."""
    x, axis = call[0], call.axis(-1)
    call.check_fits(call[1], shape_of(x))
    dims = list(range(axis, call.rank()))
    power = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, x, x), dims, True)
    factor = call.emit(aten.rsqrt.default, call.emit(aten.add.Tensor, power, call.attribute("epsilon", 1e-5)))
    return call.emit(aten.mul.Tensor, call.emit(aten.mul.Tensor, x, factor), call[1])


@converts("LRN")
def local_response_norm(call: Call) -> Value:
    """x / (bias + alpha / size * sum of squares over neighbouring channels)^beta, by pooling over channels."""
    x, size = call[0], int(call.attribute("size"))
    batch, channels, *rest = call.shape()
    alpha, beta, bias = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0)
    squares = call.reshape(call.emit(aten.mul.Tensor, x, x), [batch, 1, channels, torch.Size(rest).numel()])
    padded = call.emit(aten.constant_pad_nd.default, squares, [0, 0, (size - 1) // 2, size // 2], 0.0)
    mean = call.reshape(call.emit(aten.avg_pool2d.default, padded, [size, 1], [1, 1]), call.shape())
    base = call.emit(aten.add.Tensor, call.emit(aten.mul.Tensor, mean, alpha), bias)
    return call.emit(aten.div.Tensor, x, call.emit(aten.pow.Tensor_Tensor, base, constant(beta, dtype_of(x))))


@converts("LpNormalization")
def lp_norm(call: Call) -> Value:
    """x divided by its norm along an axis; 0 where the norm is 0."""
    axis, p = call.axis(-1), float(call.attribute("p", 2))
    norm = call.emit(aten.linalg_vector_norm.default, call[0], p, [axis], True)
    zero = call.emit(aten.eq.Tensor, norm, constant(0, call.dtype()))
    return call.emit(aten.div.Tensor, call[0], call.emit(aten.where.self, zero, constant(1, call.dtype()), norm))


@converts("MeanVarianceNormalization")
def mean_variance_norm(call: Call) -> Value:
    """(x - mean) / (sqrt(variance) + 1e-9)."""
    x, dims = call[0], call.places(call.attribute("axes", [0, 2, 3]))
    centred = call.emit(aten.sub.Tensor, x, call.emit(aten.mean.dim, x, dims, True))
    variance = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, centred, centred), dims, True)
    return call.emit(aten.div.Tensor, centred, call.emit(aten.add.Tensor, call.emit(aten.sqrt.default, variance), 1e-9))
