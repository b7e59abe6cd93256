"""Arithmetic, comparison and logic, element by element. Operands are brought to one type first, as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.backends.onnx.operators.activation import WRITERS as ACTIVATIONS
from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec

_Writer = Callable[[GraphWriter, Node], str]


def unary(kind: str) -> _Writer:
    """The writer for a function of one operand whose result has a floating-point type."""

    def write(w: GraphWriter, node: Node) -> str:
        return w.emit(kind, w.cast(arguments(node)["self"], spec(node).dtype))

    return write


def rounding(kind: str) -> _Writer:
    """The writer for a function that leaves integers alone."""

    def write(w: GraphWriter, node: Node) -> str:
        operand: Node = arguments(node)["self"]
        return w.emit(kind if spec(operand).dtype.is_floating_point else "Identity", w.name(operand))

    return write


def binary(kind: str, on_bool: str = "") -> _Writer:
    """The writer for a function of two operands in the type of its result; ``on_bool`` serves truth values."""

    def write(w: GraphWriter, node: Node) -> str:
        args, dtype = arguments(node), spec(node).dtype
        left, right = w.cast(args["self"], dtype), w.cast(args["other"], dtype)
        if args.get("alpha", 1) != 1:
            right = w.emit("Mul", right, w.constant(args["alpha"], dtype))
        return w.emit(on_bool if on_bool and dtype is torch.bool else kind, left, right)

    return write


def comparison(kind: str, negated: bool = False) -> _Writer:
    """The writer for a comparison, in the type that both operands promote to."""

    def write(w: GraphWriter, node: Node) -> str:
        args = arguments(node)
        dtype = torch.result_type(_like(args["self"]), _like(args["other"]))
        result = w.emit(kind, w.cast(args["self"], dtype), w.cast(args["other"], dtype))
        return w.emit("Not", result) if negated else result

    return write


def _like(operand: Node | float) -> torch.Tensor | float:
    if not isinstance(operand, Node):
        return operand
    return torch.empty(spec(operand).shape, dtype=spec(operand).dtype, device="meta")


def logic(kind: str) -> _Writer:
    def write(w: GraphWriter, node: Node) -> str:
        args = arguments(node)
        operands = [args[key] for key in ("self", "other") if key in args]
        return w.emit(kind, *(w.cast(operand, torch.bool) for operand in operands))

    return write


def classification(kind: str) -> _Writer:
    """The writer for `isnan` and `isinf`, which are false for integers."""

    def write(w: GraphWriter, node: Node) -> str:
        operand: Node = arguments(node)["self"]
        dtype = spec(operand).dtype
        return w.emit(kind, w.cast(operand, dtype if dtype.is_floating_point else torch.float32))

    return write


def rsqrt(w: GraphWriter, node: Node) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", w.cast(arguments(node)["self"], spec(node).dtype)))


def power(w: GraphWriter, node: Node) -> str:
    args, dtype = arguments(node), spec(node).dtype
    return w.emit("Pow", w.cast(args["self"], dtype), w.cast(args["exponent"], dtype))


def remainder(w: GraphWriter, node: Node) -> str:
    """The remainder with the sign of the divisor: ``x - floor(x / y) * y``."""
    args, dtype = arguments(node), spec(node).dtype
    left, right = w.cast(args["self"], dtype), w.cast(args["other"], dtype)
    if not dtype.is_floating_point:
        return w.emit("Mod", left, right)
    return w.emit("Sub", left, w.emit("Mul", w.emit("Floor", w.emit("Div", left, right)), right))


def fmod(w: GraphWriter, node: Node) -> str:
    args, dtype = arguments(node), spec(node).dtype
    return w.emit("Mod", w.cast(args["self"], dtype), w.cast(args["other"], dtype), fmod=1)


def where(w: GraphWriter, node: Node) -> str:
    args, dtype = arguments(node), spec(node).dtype
    condition = w.cast(args["condition"], torch.bool)
    return w.emit("Where", condition, w.cast(args["self"], dtype), w.cast(args["other"], dtype))


def to_dtype(w: GraphWriter, node: Node) -> str:
    return w.convert(w.name(arguments(node)["self"]), spec(node).dtype)


def dropout(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    if args["train"]:
        raise w.refuse("it runs in training mode")
    return w.emit("Identity", w.name(args["input"]))


_UNARY = {
    aten.exp: "Exp",
    aten.log: "Log",
    aten.sqrt: "Sqrt",
    aten.abs: "Abs",
    aten.neg: "Neg",
    aten.sign: "Sign",
    aten.reciprocal: "Reciprocal",
    aten.erf: "Erf",
    aten.sin: "Sin",
    aten.cos: "Cos",
    aten.tan: "Tan",
    aten.asin: "Asin",
    aten.acos: "Acos",
    aten.atan: "Atan",
    aten.sinh: "Sinh",
    aten.cosh: "Cosh",
    aten.asinh: "Asinh",
    aten.acosh: "Acosh",
    aten.atanh: "Atanh",
}

WRITERS: dict[OpOverload, _Writer] = {
    **{packet.default: unary(kind) for packet, kind in _UNARY.items()},
    **ACTIVATIONS,
    aten.floor.default: rounding("Floor"),
    aten.ceil.default: rounding("Ceil"),
    aten.round.default: rounding("Round"),
    aten.rsqrt.default: rsqrt,
    aten.add.Tensor: binary("Add", on_bool="Or"),
    aten.sub.Tensor: binary("Sub"),
    aten.mul.Tensor: binary("Mul", on_bool="And"),
    aten.div.Tensor: binary("Div"),
    aten.maximum.default: binary("Max", on_bool="Or"),
    aten.minimum.default: binary("Min", on_bool="And"),
    aten.pow.Tensor_Tensor: power,
    aten.remainder.Tensor: remainder,
    aten.fmod.Tensor: fmod,
    aten.eq.Tensor: comparison("Equal"),
    aten.ne.Tensor: comparison("Equal", negated=True),
    aten.lt.Tensor: comparison("Less"),
    aten.le.Tensor: comparison("LessOrEqual"),
    aten.gt.Tensor: comparison("Greater"),
    aten.ge.Tensor: comparison("GreaterOrEqual"),
    aten.logical_and.default: logic("And"),
    aten.logical_or.default: logic("Or"),
    aten.logical_xor.default: logic("Xor"),
    aten.logical_not.default: logic("Not"),
    aten.isnan.default: classification("IsNaN"),
    aten.isinf.default: classification("IsInf"),
    aten.where.self: where,
    aten.to.dtype: to_dtype,
    aten.dropout.default: dropout,
}
