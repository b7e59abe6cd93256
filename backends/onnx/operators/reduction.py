"""Reductions over whole dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, spec

_Writer = Callable[[GraphWriter, Node], str]


def reduction(kind: str) -> _Writer:
    """The writer for a reduction in the type of its result."""

    def write(w: GraphWriter, node: Node) -> str:
        args = arguments(node)
        return w.reduce(kind, w.cast(args["self"], spec(node).dtype), _dims(args["dim"]), args["keepdim"])

    return write


def extremum_place(kind: str) -> _Writer:
    """The writer for `argmax` and `argmin`; without a dimension they count through the whole tensor."""

    def write(w: GraphWriter, node: Node) -> str:
        args = arguments(node)
        x = w.name(args["self"])
        if args["dim"] is not None:
            return w.emit(kind, x, axis=args["dim"], keepdims=int(args["keepdim"]))
        flat = w.reshape(x, [spec(args["self"]).elements])
        return w.reshape(w.emit(kind, flat, axis=0, keepdims=0), spec(node).shape)

    return write


def cumsum(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    return w.emit("CumSum", w.cast(args["self"], spec(node).dtype), w.constant(args["dim"]))


def vector_norm(w: GraphWriter, node: Node) -> str:
    """``sum(|x|^p)^(1/p)``; the largest or smallest ``|x|`` for an infinite p, the number of non-zeros for 0."""
    args, dtype = arguments(node), spec(node).dtype
    x, order, dims, keep = w.cast(args["self"], dtype), float(args["ord"]), _dims(args["dim"]), args["keepdim"]
    if order in (1, 2):
        return w.reduce("ReduceL1" if order == 1 else "ReduceL2", x, dims, keep)
    size = w.emit("Abs", x)
    if math.isinf(order):
        return w.reduce("ReduceMax" if order > 0 else "ReduceMin", size, dims, keep)
    if order == 0:
        return w.reduce("ReduceSum", w.emit("Sign", size), dims, keep)
    total = w.reduce("ReduceSum", w.emit("Pow", size, w.constant(order, dtype)), dims, keep)
    return w.emit("Pow", total, w.constant(1 / order, dtype))


def _dims(given: int | list[int] | None) -> list[int] | None:
    return [given] if isinstance(given, int) else given


WRITERS = {
    aten.mean.dim: reduction("ReduceMean"),
    aten.sum.dim_IntList: reduction("ReduceSum"),
    aten.prod.dim_int: reduction("ReduceProd"),
    aten.amax.default: reduction("ReduceMax"),
    aten.amin.default: reduction("ReduceMin"),
    aten.argmax.default: extremum_place("ArgMax"),
    aten.argmin.default: extremum_place("ArgMin"),
    aten.cumsum.default: cumsum,
    aten.linalg_vector_norm.default: vector_norm,
}
