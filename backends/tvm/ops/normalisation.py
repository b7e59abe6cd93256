"""Operators that reduce, then rescale element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tvm import te, tirx

from lvc.backends.tvm import math as vector
from lvc.backends.tvm.extremes import largest
from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.ops.movement import reshape_array
from lvc.backends.tvm.ops.reductions import reduce
from lvc.backends.tvm.ops.table import Call, lowers
from lvc.backends.tvm.scope import Array, Expr, Index, Scope, scalar_of

aten = torch.ops.aten


@lowers(aten.batch_norm.default)
def batch_norm(call: Call) -> Array:
    """A factor and an offset for each channel, computed when the model is built if all are stored tensors."""
    operand: Array = call["input"]
    parts = [call[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if all(part is None or part.constant is not None for part in parts):
        factor, offset = _folded(call, parts)
        return call.result(lambda index: operand.read(index) * factor.read((index[1],)) + offset.read((index[1],)))
    weight, bias, mean, variance = parts

    def read(index: Index) -> Expr:
        channel = (index[1],)
        scale = scalar_of(1, call.dtype) / tirx.sqrt(variance.read(channel) + scalar_of(call["eps"], call.dtype))
        value = (operand.read(index) - mean.read(channel)) * scale
        return _affine(value, weight, bias, channel)

    return call.result(read)


def _folded(call: Call, parts: Sequence[Array | None]) -> tuple[Array, Array]:
    weight, bias, mean, variance = (
        part.constant.astype(np.float64) if part and part.constant is not None else None for part in parts
    )
    assert mean is not None
    assert variance is not None
    factor = (1.0 if weight is None else weight) / np.sqrt(variance + call["eps"])
    offset = (0.0 if bias is None else bias) - mean * factor
    name = call.node.name
    return (
        call.scope.constant(f"{name} factor", factor.astype(call.dtype)),
        call.scope.constant(f"{name} offset", offset.astype(call.dtype)),
    )


def _affine(value: Expr, weight: Array | None, bias: Array | None, index: Index) -> Expr:
    if weight is not None:
        value = value * weight.read(index)
    return value if bias is None else value + bias.read(index)


def standardise(
    scope: Scope, operand: Array, dims: Sequence[int], eps: float, layout: Layout = PLAIN
) -> Callable[[Index], Expr]:
    """(x - mean) / sqrt(variance + eps) over dimensions; the variance is taken around the mean, in two passes."""
    count = math.prod(operand.shape[d] for d in dims)
    share = scalar_of(1 / count, operand.dtype)

    def outer(index: Index) -> list[Expr]:
        return [0 if d in dims else i for d, i in enumerate(index)]

    total = reduce(scope, operand.shape, operand.read, dims, te.sum, layout=layout)

    def centred(index: Index) -> Expr:
        return operand.read(index) - total.read(outer(index)) * share

    def square(index: Index) -> Expr:
        from lvc.backends.tvm.scope import let

        return let(centred(index), lambda v: v * v)

    squares = reduce(scope, operand.shape, square, dims, te.sum, layout=layout)

    def inverse(index: Index) -> Expr:
        variance = squares.read(index) * share + scalar_of(eps, operand.dtype)
        return scalar_of(1, operand.dtype) / tirx.sqrt(variance)

    scale = scope.stage(squares.shape, inverse, layout=layout)
    return lambda index: centred(index) * scale.read(outer(index))


@lowers(aten.layer_norm.default)
def layer_norm(call: Call) -> Array:
    """Standardise the last dimensions, then an affine map of each of their elements."""
    operand: Array = call["input"]
    first = len(operand.shape) - len(call["normalized_shape"])
    value = standardise(call.scope, operand, range(first, len(operand.shape)), call["eps"])
    return call.result(lambda index: _affine(value(index), call["weight"], call["bias"], index[first:]))


@lowers(aten.group_norm.default)
def group_norm(call: Call) -> Array:
    """Standardise groups of channels, then an affine map of each channel."""
    operand, groups = call["input"], call["num_groups"]
    n, c, *rest = operand.shape
    grouped = reshape_array(call.scope, operand, (n, groups, (c // groups) * math.prod(rest)))
    value = Array(grouped.shape, call.dtype, standardise(call.scope, grouped, (2,), call["eps"]))
    whole = reshape_array(call.scope, value, operand.shape)
    return call.result(lambda index: _affine(whole.read(index), call["weight"], call["bias"], (index[1],)))


@lowers(aten.instance_norm.default)
def instance_norm(call: Call) -> Array:
    """Standardise each channel of each sample, then an affine map of each channel."""
    operand: Array = call["input"]
    layout = call.layout if len(operand.shape) == 4 else PLAIN
    value = standardise(call.scope, operand, range(2, len(operand.shape)), call["eps"], layout)
    return call.result(lambda index: _affine(value(index), call["weight"], call["bias"], (index[1],)))


@lowers(aten.softmax.int, aten.log_softmax.int)
def softmax(call: Call) -> Array:
    """exp(x - max) / sum along a dimension, or its logarithm."""
    operand: Array = call["self"]
    if not operand.shape:
        return call.result(lambda _: scalar_of(int(call.node.target is aten.softmax.int), call.dtype))
    dim = call["dim"] % len(operand.shape)

    def outer(index: Index) -> list[Expr]:
        return [0 if d == dim else i for d, i in enumerate(index)]

    peak = reduce(call.scope, operand.shape, operand.read, (dim,), largest)

    def shifted(index: Index) -> Expr:
        return operand.read(index) - peak.read(outer(index))

    if call.node.target is aten.log_softmax.int:
        total = reduce(call.scope, operand.shape, lambda index: vector.exp_of_negative(shifted(index)), (dim,), te.sum)
        logarithm = call.scope.stage(total.shape, lambda index: vector.log(total.read(index)))
        return call.result(lambda index: shifted(index) - logarithm.read(outer(index)))
    powers = call.scope.stage(operand.shape, lambda index: vector.exp_of_negative(shifted(index)))
    total = reduce(call.scope, operand.shape, powers.read, (dim,), te.sum)
    inverse = call.scope.stage(total.shape, lambda index: scalar_of(1, call.dtype) / total.read(index))
    return call.result(lambda index: powers.read(index) * inverse.read(outer(index)))
