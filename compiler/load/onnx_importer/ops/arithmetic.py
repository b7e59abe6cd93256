"""Element by element: arithmetic, comparison, logic, element types."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._ops import OpOverload

from lvc.compiler.ir.graph import is_call
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

_UNARY = {
    "Abs": aten.abs.default,
    "Neg": aten.neg.default,
    "Floor": aten.floor.default,
    "Ceil": aten.ceil.default,
    "Round": aten.round.default,
    "Sign": aten.sign.default,
    "Sqrt": aten.sqrt.default,
    "Exp": aten.exp.default,
    "Log": aten.log.default,
    "Erf": aten.erf.default,
    "Reciprocal": aten.reciprocal.default,
    "Sin": aten.sin.default,
    "Cos": aten.cos.default,
    "Tan": aten.tan.default,
    "Asin": aten.asin.default,
    "Acos": aten.acos.default,
    "Atan": aten.atan.default,
    "Sinh": aten.sinh.default,
    "Cosh": aten.cosh.default,
    "Asinh": aten.asinh.default,
    "Acosh": aten.acosh.default,
    "Atanh": aten.atanh.default,
    "Not": aten.logical_not.default,
    "IsNaN": aten.isnan.default,
}
_BINARY = {
    "Equal": aten.eq.Tensor,
    "Less": aten.lt.Tensor,
    "LessOrEqual": aten.le.Tensor,
    "Greater": aten.gt.Tensor,
    "GreaterOrEqual": aten.ge.Tensor,
    "And": aten.logical_and.default,
    "Or": aten.logical_or.default,
    "Xor": aten.logical_xor.default,
}


@converts(*_UNARY)
def unary(call: Call) -> Value:
    return call.emit(_UNARY[call.op], call[0])


@converts(*_BINARY)
def binary(call: Call) -> Value:
    return call.emit(_BINARY[call.op], call[0], call[1])


@converts("IsInf")
def is_infinite(call: Call) -> Value:
    low, high = call.attribute("detect_negative", 1), call.attribute("detect_positive", 1)
    if low and high:
        return call.emit(aten.isinf.default, call[0])
    limit = constant(float("inf") if high else float("-inf"), call.dtype())
    if not low and not high:
        return call.emit(aten.logical_and.default, call.emit(aten.isinf.default, call[0]), constant(False, torch.bool))
    return call.emit(aten.eq.Tensor, call[0], limit)


def with_number(value: Value, other: Value) -> Value | float:
    """Return a constant of one element as a plain number where that changes neither shape nor type of the result."""
    if not isinstance(value, Constant) or isinstance(other, Constant) or value.tensor.dtype is torch.bool:
        return value
    if value.tensor.numel() != 1 or value.tensor.dim() > len(shape_of(other)):
        return value
    number: float = value.tensor.item()
    return number


@converts("Add")
def add(call: Call) -> Value:
    return added(call, call[0], call[1])


def added(call: Call, a: Value, b: Value) -> Value:
    """Add two values, the constant second; a bias right after a linear layer becomes the layer's bias."""
    a, b = (b, a) if isinstance(a, Constant) else (a, b)
    if isinstance(a, torch.fx.Node) and _is_bias(a, b) and call.emitter.readers[a] < 2:
        bias = call.reshape(b, [shape_of(a)[-1]])
        return call.emit(aten.linear.default, a.args[0], a.args[1], bias)
    return call.emit(aten.add.Tensor, a, with_number(b, a))


def _is_bias(a: torch.fx.Node, b: Value) -> bool:
    if not is_call(a, aten.linear.default) or not isinstance(b, Constant):
        return False
    shape, width = shape_of(b), shape_of(a)[-1]
    return len(a.args) == 2 and len(shape) <= len(shape_of(a)) and shape[-1:] == (width,) and b.tensor.numel() == width


@converts("Sub")
def subtract(call: Call) -> Value:
    return call.emit(aten.sub.Tensor, call[0], with_number(call[1], call[0]))


@converts("Mul")
def multiply(call: Call) -> Value:
    a, b = (call[1], call[0]) if isinstance(call[0], Constant) else (call[0], call[1])
    return call.emit(aten.mul.Tensor, a, with_number(b, a))


@converts("Div")
def divide(call: Call) -> Value:
    """Integers are divided towards zero."""
    a, b, dtype = call[0], call[1], call.dtype()
    if dtype.is_floating_point:
        return call.emit(aten.div.Tensor, a, with_number(b, a))
    if isinstance(a, Constant) and isinstance(b, Constant):
        if not b.tensor.all():
            raise ValueError("division of integers by zero")
        return Constant(torch.div(a.tensor, b.tensor, rounding_mode="trunc"))
    quotient = call.emit(aten.div.Tensor, call.cast(a, torch.float64), call.cast(b, torch.float64))
    return call.cast(quotient, dtype)


@converts("Mod")
def modulo(call: Call) -> Value:
    overload = aten.fmod.Tensor if call.attribute("fmod", 0) else aten.remainder.Tensor
    return call.emit(overload, call[0], call[1])


@converts("Pow")
def power(call: Call) -> Value:
    """The result has the type of the base."""
    base, exponent, dtype = call[0], call[1], call.dtype()
    if isinstance(exponent, Constant) and exponent.tensor.numel() == 1 and isinstance(base, torch.fx.Node):
        number = exponent.tensor.item()
        if number == 2 and exponent.tensor.dim() <= call.rank():
            return call.emit(aten.mul.Tensor, base, base)
        if number == 0.5 and dtype.is_floating_point and exponent.tensor.dim() <= call.rank():
            return call.emit(aten.sqrt.default, base)
    common = torch.promote_types(dtype, dtype_of(exponent)) if not dtype.is_floating_point else dtype
    result = call.emit(aten.pow.Tensor_Tensor, call.cast(base, common), call.cast(exponent, common))
    return call.cast(result, dtype)


def _folded(call: Call, step: Callable[[Value, Value], Value]) -> Value:
    first, *rest = call.all()
    for value in rest:
        first = step(first, value)
    return first


@converts("Sum")
def total(call: Call) -> Value:
    return _folded(call, lambda a, b: added(call, a, b))


@converts("Mean")
def average(call: Call) -> Value:
    return call.emit(aten.div.Tensor, total(call), float(len(call)))


@converts("Max")
def maximum(call: Call) -> Value:
    return _folded(call, lambda a, b: _bounded(call, a, b, aten.maximum.default, "min"))


@converts("Min")
def minimum(call: Call) -> Value:
    return _folded(call, lambda a, b: _bounded(call, a, b, aten.minimum.default, "max"))


def _bounded(call: Call, a: Value, b: Value, overload: OpOverload, bound: str) -> Value:
    """The larger or smaller of two values; a clamp where one is a number."""
    a, b = (b, a) if isinstance(a, Constant) else (a, b)
    number = with_number(b, a)
    if isinstance(number, Value):
        return call.emit(overload, a, b)
    return call.emit(aten.clamp.default, a, **{bound: number})


@converts("Where")
def where(call: Call) -> Value:
    return call.emit(aten.where.self, call[0], call[1], call[2])


@converts("Cast")
def cast(call: Call) -> Value:
    return call.cast(call[0], torch_dtype(int(call.attribute("to"))))


@converts("CastLike")
def cast_like(call: Call) -> Value:
    return call.cast(call[0], call.dtype(1))


@converts("Identity")
def identity(call: Call) -> Value:
    return call[0]


@converts("Dropout")
def dropout(call: Call) -> list[Value]:
    """Nothing at inference; the mask, if anybody reads it, is all true."""
    training = call.get(2)
    if training is not None and (not isinstance(training, Constant) or training.tensor.item()):
        raise Unsupported("is in training mode")
    if call.reads(1) and call.opset < 12:
        raise Unsupported(f"is asked for its mask, which opset {call.opset} does not define at inference")
    mask = constant(torch.ones(call.shape(), dtype=torch.bool), torch.bool) if call.reads(1) else constant(0)
    return [call[0], mask]


@converts("CumSum")
def cumulative_sum(call: Call) -> Value:
    x, axis = call[0], call.places([int(call.number(1, "axis"))])[0]
    size = call.shape()[axis]
    if call.attribute("reverse", 0):
        x = call.emit(aten.flip.default, x, [axis])
    x = call.cast(call.emit(aten.cumsum.default, x, axis), call.dtype())
    if call.attribute("exclusive", 0):
        pads = [0, 0] * (call.rank() - 1 - axis) + [1, 0]
        x = call.emit(aten.slice.Tensor, call.emit(aten.constant_pad_nd.default, x, pads, 0.0), axis, 0, size)
    return call.emit(aten.flip.default, x, [axis]) if call.attribute("reverse", 0) else x
