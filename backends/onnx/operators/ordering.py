"""Sorting and writing at computed places."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import ordering

_REDUCTIONS = {"none": "none", "sum": "add", "prod": "mul", "amax": "max", "amin": "min"}
_SORTED = (torch.float32, torch.float64, torch.int32, torch.int64)


def argsort(w: GraphWriter, node: Node) -> str:
    """TopK of all elements, which keeps equal ones in order."""
    args = arguments(node)
    value, shape = args["x"], spec(node).shape
    keys = w.name(value) if spec(value).dtype in _SORTED else w.cast(value, torch.int32)
    order = w.emit("TopK", keys, w.constant([shape[-1]]), largest=int(args["descending"]), sorted=1)
    w.nodes[-1].output[:] = [f"{order}/values", order]
    return w.emit("Identity", order)


def scatter(w: GraphWriter, node: Node) -> str:
    args = arguments(node)
    reduction = _REDUCTIONS[args["reduce"]]
    named = {} if reduction == "none" else {"reduction": reduction}
    operands = (w.name(args[name]) for name in ("x", "index", "updates"))
    return w.emit("ScatterElements", *operands, axis=len(spec(node).shape) - 1, **named)


def nms(w: GraphWriter, node: Node) -> str:
    raise w.refuse("ONNX has the boxes that stay as a list whose length depends on them, and lvc a mark for each box")


WRITERS = {ordering.argsort: argsort, ordering.scatter: scatter, ordering.nms: nms}
