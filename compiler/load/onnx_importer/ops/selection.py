"""Selections whose number of elements depends on the data: computed at the largest length, with a count."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import is_call, spec, tensor
from lvc.compiler.load import selection
from lvc.compiler.load.onnx_importer.call import Call, converts
from lvc.compiler.load.onnx_importer.rules import by_meaning
from lvc.compiler.load.onnx_importer.values import Constant, Unsupported, Value

aten = torch.ops.aten


@converts("NonZero")
def non_zero(call: Call) -> Value:
    """Coordinates, one row for each dimension."""
    value = call[0]
    if isinstance(value, Constant):
        return Constant(torch.nonzero(value.tensor).T.contiguous())
    if not call.rank():
        raise Unsupported("is asked of a number")
    result: Value = by_meaning(call, lambda x: torch.stack(selection.coordinates(selection.truth(x))), value)
    return result


@converts("Compress")
def compress(call: Call) -> Value:
    """The slices for which a condition, maybe shorter than the axis, holds."""
    has_axis, condition = "axis" in call.attributes, call[1]
    value = call[0] if has_axis else call.reshape(call[0], [-1])
    axis = call.axis(None) if has_axis else 0
    if isinstance(condition, Constant):
        places: Value = Constant(torch.nonzero(condition.tensor.flatten()).flatten())
    else:
        places = by_meaning(call, selection.places, condition)
    return call.emit(aten.index_select.default, value, axis, places)


@converts("NonMaxSuppression")
def non_max_suppression(call: Call) -> Value:
    most = min(int(call.number(2, "max_output_boxes_per_class")), call.shape(1)[2])
    if most <= 0:
        return Constant(torch.zeros((0, 3), dtype=torch.int64))
    threshold = call.number(3, "iou_threshold")
    if not 0 <= threshold <= 1:
        raise ValueError(f"iou_threshold cannot be {threshold}")
    least = call.number(4, "score_threshold") if call.get(4) is not None else None
    centres = bool(call.attribute("center_point_box", 0))
    options = {"iou_threshold": threshold, "score_threshold": least, "centres": centres}
    alone = _one_class_each(call, least) if most == call.shape(1)[2] else None
    if alone is not None:
        keys, classes, count = alone
        meaning = selection.onnx_nms_of_one_class_each
        made: Value = by_meaning(call, meaning, call[0], keys, classes, count=count, **options)
        return made
    options["most"] = most
    result: Value = by_meaning(call, selection.onnx_nms, call[0], call[1], **options)
    return result


def _one_class_each(call: Call, least: float | None) -> tuple[Value, Value, int] | None:
    """The score and the class of each box, and how many classes there are, where the scores of all other classes are
    one number that is not above ``least``: ``where(class == [0, 1, ...], score, number)``. None for other scores.

    Boxes of a thousand groups are written so, and a thousand lists of a thousand scores need not be sorted.
    """
    images, count, size = call.shape(1)
    scores = call[1]
    if least is None or count == 1 or not isinstance(scores, Node) or not is_call(scores, aten.where.self):
        return None
    chosen, keys, number = scores.args
    if not isinstance(chosen, Node) or not is_call(chosen, aten.eq.Tensor) or not isinstance(keys, Node):
        return None
    (classes, table), module = chosen.args, scores.graph.owning_module
    assert module is not None
    others, known = (tensor(module, value) for value in (number, table))
    if others is None or others.numel() != 1 or not float(others) <= least or not isinstance(classes, Node):
        return None
    if known is None or not torch.equal(known, torch.arange(count).reshape(1, count, 1)):
        return None
    if not spec(classes).shape == spec(keys).shape == (images, 1, size) or spec(classes).dtype is not torch.int64:
        return None
    return call.reshape(keys, (images, size)), call.reshape(classes, (images, size)), count


@converts("Unique")
def unique(call: Call) -> Value:
    raise Unsupported("makes a result whose shape depends on the data")
