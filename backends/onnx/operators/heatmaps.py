"""Peaks of heat maps, in a loop that resizes the maps of one object after the other."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch.fx import Node

from lvc.backends.onnx.writer import GraphWriter
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.operators import heatmaps


def peaks(w: GraphWriter, node: Node) -> str:
    """A map whose size is out of bounds is resized all the same, or refused by whoever runs it."""
    args = arguments(node)
    maps, sizes = args["maps"], args["sizes"]
    if spec(maps).dtype is not torch.float32:
        raise w.refuse(f"maps of {spec(maps).dtype} are not resized")
    count, kinds, *_ = spec(maps).shape
    body = _Body(node.name)
    turn, going = body.input("turn", TensorProto.INT64), body.input("going", TensorProto.BOOL)
    one, last = body.constant([0]), body.constant([1])
    image = body.emit("Unsqueeze", body.emit("Gather", w.name(maps), turn), one)
    size = body.emit("Gather", w.name(sizes), turn)
    whole = body.emit("Concat", body.constant([1, kinds]), size, axis=0)
    how = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": heatmaps.A}
    resized = body.emit("Resize", image, "", "", whole, **how)
    flat = body.emit("Reshape", resized, body.constant([kinds, -1]))
    place = body.emit("ArgMax", flat, axis=1, keepdims=1)
    width = body.emit("Gather", size, last)
    row = body.emit("Div", place, width)
    column = body.emit("Sub", place, body.emit("Mul", row, width))
    numbers = [body.emit("Cast", x, to=TensorProto.FLOAT) for x in (row, column)]
    found = body.emit("Concat", *numbers, body.emit("GatherElements", flat, place, axis=1), axis=1)
    body.output(body.emit("Identity", going), TensorProto.BOOL, [])
    body.output(found, TensorProto.FLOAT, [kinds, 3])
    return w.emit("Loop", w.constant(torch.tensor(count)), w.constant(True, torch.bool), body=body.graph())


class _Body:
    """A graph inside a node, whose names begin with that of the node; it reads names around it as they are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(f"{self.name}/{name}", kind, []))
        return f"{self.name}/{name}"

    def output(self, name: str, kind: int, shape: list[int]) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, values: list[int]) -> str:
        return self.emit("Constant", value=helper.make_tensor("value", TensorProto.INT64, [len(values)], values))

    def emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.name}/body/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def graph(self) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, f"{self.name}/body", self.inputs, self.outputs)


WRITERS = {heatmaps.peaks: peaks}
