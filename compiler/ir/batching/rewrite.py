"""`Model.with_batch`: the model written for another number of images."""

from __future__ import annotations

import torch
from torch.fx import Node

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.batching import HELP, BatchError, Batching, Calls
from lvc.compiler.ir.batching.proof import prove
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import infer_spec, insert_call, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import TensorSpec


def with_batch(model: Model, images: int) -> Model:
    """Return the model for so many images at once; see `Model.with_batch`."""
    if images < 1:
        raise BatchError(f"a batch has at least one image, not {images}")
    batching = Batching(model)
    calls = batching.calls(images)
    twin = model.copy(share_tensors=True)
    known = dict(zip(model.module.graph.nodes, twin.module.graph.nodes, strict=True))
    for node, copied in known.items():
        if node.op == "placeholder":
            copied.meta["spec"] = TensorSpec((images, *spec(node).shape[1:]), spec(node).dtype)
        elif node.op == "call_function":
            _write(node, copied, known, calls)
    _write_outputs(model, twin, batching, images)
    twin.module.recompile()
    prove(model, batching, images, twin)
    return twin


def _write(node: Node, copied: Node, known: dict[Node, Node], calls: Calls) -> None:
    """Give the copy of a call the arguments that it has for the other batch."""
    if node in calls.written:
        args, kwargs = calls.written[node]
        copied.args = torch.fx.node.map_arg(args, known.__getitem__)
        copied.kwargs = torch.fx.node.map_arg(kwargs, known.__getitem__)
    for operand, axis in calls.batching.spread(node).items():
        copied.replace_input_with(known[operand], _spread(copied, known[operand], axis, calls))
    copied.meta["spec"] = infer_spec(copied)


def _spread(before: Node, operand: Node, axis: BatchAxis, calls: Calls) -> Node:
    """Insert what makes a value for each image of one that is for all, as `BatchAxis.spread` computes it."""
    shape, size = spec(operand).shape, calls.batching.images
    apart = [*shape[: axis.dim], axis.outer, size, axis.inner, *shape[axis.dim + 1 :]]
    times = [1] * len(apart)
    times[axis.dim + 1] = -(-calls.images // size)
    value = insert_call(before, aten.reshape.default, operand, apart)
    value = insert_call(before, aten.repeat.default, value, times)
    value = insert_call(before, aten.slice.Tensor, value, axis.dim + 1, 0, calls.images, 1)
    return insert_call(before, aten.reshape.default, value, list(axis.shape(shape, calls.images)))


def _write_outputs(model: Model, twin: Model, batching: Batching, images: int) -> None:
    """Check that the images are apart in the outputs, and give each image its part of those that are for all."""
    output = twin.module.graph.output_node()
    parts = list(twin.output_nodes)
    for place, (name, node) in enumerate(zip(model.output_names, model.output_nodes, strict=True)):
        axis = batching.axis(node)
        if axis is None and spec(node).shape[:1] == (batching.images,):
            calls = batching.calls(images)
            parts[place] = _spread(output, parts[place], BatchAxis(0), calls)
        elif axis is None or axis.dim or axis.outer > 1:
            why = "it is one for all images" if axis is None else "its first dimension does not hold image after image"
            raise BatchError(f"output '{name}' is not that of a batch", where=origin(node), why=why, help=HELP)
    output.args = (tuple(parts),)
