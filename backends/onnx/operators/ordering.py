"""Sorting, writing at computed places, and non-maximum suppression."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import ordering

_REDUCTIONS = {"none": "none", "sum": "add", "prod": "mul", "amax": "max", "amin": "min"}
_MOST_GROUPED = 8192
_SORTED = (torch.float32, torch.float64, torch.int32, torch.int64)


def argsort(w: GraphWriter, node: Node) -> str:
    """TopK of all elements, or of the first few, which keeps equal ones in order."""
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
    """ONNX has the boxes that stay as a list whose length depends on them, and lvc a mark for each box.

    The order of preference goes as scores, from n to 1, of which those of boxes that are not valid are below the
    threshold; a group as the class whose number is the place of its first box. Boxes whose corners are in the wrong
    order overlap none, so they become empty: ONNX would swap their corners.
    """
    args = arguments(node)
    boxes, groups = args["boxes"], args["groups"]
    *lead, many, _ = spec(boxes).shape
    images, threshold = math.prod(lead), args["iou_threshold"]
    if spec(boxes).dtype is not torch.float32 or threshold < 0:
        raise w.refuse(
            f"ONNX compares boxes of float32 with a threshold from 0 to 1, not {spec(boxes).dtype} with {threshold}"
        )
    if groups is not None and many > _MOST_GROUPED:
        raise w.refuse(
            f"it would compare {many} boxes in as many groups, and {_MOST_GROUPED} are the most that fit into memory"
        )
    preference = w.constant(torch.arange(many, 0, -1), torch.float32)
    keys = w.emit("Where", w.cast(args["valid"], torch.bool), preference, w.constant(0.0, torch.float32))
    scores = w.reshape(keys, (images, 1, many))
    if groups is not None:
        rows, columns = (w.reshape(w.name(groups), (images, *shape)) for shape in ((many, 1), (1, many)))
        alike = w.convert(w.emit("Equal", rows, columns), torch.int32)
        first = w.reshape(w.emit("ArgMax", alike, axis=2, keepdims=0), (images, 1, many))
        is_class = w.emit("Equal", first, w.constant(torch.arange(many).reshape(1, many, 1)))
        scores = w.emit("Where", is_class, scores, w.constant(0.0, torch.float32))
    kept = w.emit(
        "NonMaxSuppression",
        *(_ordered(w, w.reshape(w.name(boxes), (images, many, 4))), scores, w.constant([many])),
        *(w.constant(torch.tensor([limit])) for limit in (min(_float_below(threshold), 1.0), 0.5)),
    )
    image, place = (w.emit("Gather", kept, w.constant(column), axis=1) for column in (0, 2))
    places = w.emit("Add", w.emit("Mul", image, w.constant(many)), place)
    nothing = w.constant(torch.zeros(images * many, dtype=torch.int32))
    ones = w.emit("Expand", w.constant([1], torch.int32), w.emit("Shape", places))
    marks = w.emit("ScatterElements", nothing, places, ones, axis=0)
    return w.convert(w.reshape(marks, (*lead, many)), torch.bool)


def _ordered(w: GraphWriter, boxes: str) -> str:
    """Boxes without those whose second corner comes before the first: they become empty."""
    first, second = (w.emit("Slice", boxes, *map(w.constant, ([start], [start + 2], [2]))) for start in (0, 2))
    return w.emit("Concat", first, w.emit("Max", first, second), axis=2)


def _float_below(threshold: float) -> float:
    """The largest number of single precision that is not above a threshold: the same numbers are greater than it."""
    single = np.float32(threshold)
    return float(single if single <= threshold else np.nextafter(single, np.float32(-1)))


WRITERS = {ordering.argsort: argsort, ordering.scatter: scatter, ordering.nms: nms}
