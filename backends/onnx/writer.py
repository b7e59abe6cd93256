"""A model of the dialect, written as ONNX node by node.

Names are kept: a node's result has the node's name, a stored tensor its own, inputs and outputs those of the
signature. What one operator takes more than one ONNX node for is named after it with a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch.fx import Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import op_name, origin, spec, tensor
from lvc.compiler.ir.model import PROPERTY, Model
from lvc.compiler.ir.operators.coded_weights import pack
from lvc.compiler.ir.serialise import tensor_bytes
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.scopes import read_from_outside

_TYPES: dict[torch.dtype, int] = {
    torch.float64: TensorProto.DOUBLE,
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}
_LARGEST = (1 << 31) - (1 << 20)  # a protobuf message ends at 2 GiB


class GraphWriter:
    """The ONNX graph as far as it is written; what the writers of the operators add to it."""

    def __init__(self, model: Model, opset: int) -> None:
        self.model = model
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self.constants: dict[tuple[TensorSpec, bytes], str] = {}
        self.taken = {value.name for value in (*model.inputs, *model.outputs)}
        self.names: dict[Node, str] = {}
        self.current: Node | None = None

    def name(self, node: Node) -> str:
        """The name of a node's result in the ONNX graph."""
        return self.names[node]

    def declare(self, node: Node, name: str) -> None:
        """Let a node's result have a name, or one like it if that is taken."""
        free, count = name, 0
        while free in self.taken:
            count += 1
            free = f"{name}_{count}"
        self.taken.add(free)
        self.names[node] = free

    def emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an ONNX node with one result; return the result's name, which is provisional. None drops an attribute."""
        assert self.current is not None
        name = f"{self.current.name}/{len(self.nodes)}"
        given = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(kind, inputs, [name], name=name, doc_string=origin(self.current), **given)
        self.nodes.append(node)
        return name

    def constant(self, value: torch.Tensor | Sequence[int] | float, dtype: torch.dtype | None = None) -> str:
        """Return the name of an initialiser with these values; a list or number is int64 unless a type is given."""
        stored = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=dtype or torch.int64)
        stored = stored if dtype is None else stored.to(dtype)
        key = (TensorSpec.of(stored), tensor_bytes(stored))
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            self.store(name, stored)
            self.constants[key] = name
        return self.constants[key]

    def int4(self, integers: torch.Tensor) -> str:
        """Return the name of an initialiser of 4-bit integers; of larger ones the lower bits are stored."""
        name = f"constant_{len(self.constants)}_int4"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.initialisers[name] = TensorProto(
            name=name,
            data_type=TensorProto.INT4,
            dims=integers.shape,
            raw_data=tensor_bytes(pack(integers.int() & 15, 4)),
        )
        return name

    def store(self, name: str, value: torch.Tensor) -> None:
        proto = TensorProto(name=name, data_type=_TYPES[value.dtype], dims=value.shape, raw_data=tensor_bytes(value))
        self.initialisers[name] = proto

    def cast(self, value: Node | float, dtype: torch.dtype) -> str:
        """Return the name of an operand as a tensor of a type; a number becomes a constant."""
        if not isinstance(value, Node):
            return self.constant(value, dtype)
        return self.name(value) if spec(value).dtype == dtype else self.convert(self.name(value), dtype)

    def convert(self, name: str, dtype: torch.dtype) -> str:
        return self.emit("Cast", name, to=_TYPES[dtype])

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.emit("Reshape", name, self.constant(list(shape)), allowzero=1 if 0 in shape else None)

    def reduce(self, kind: str, name: str, dims: Sequence[int] | None, keep: bool) -> str:
        """Reduce over dimensions, all of them for None or none given."""
        if not dims:
            return self.emit(kind, name, keepdims=int(keep))
        if self.opset >= 18 or kind == "ReduceSum":
            return self.emit(kind, name, self.constant(list(dims)), keepdims=int(keep))
        return self.emit(kind, name, axes=list(dims), keepdims=int(keep))

    def stored(self, value: Node | None) -> torch.Tensor | None:
        return tensor(self.model.module, value)

    def refuse(self, why: str) -> CompileError:
        assert self.current is not None
        return CompileError(
            f"{op_name(self.current)} at '{self.current.name}' cannot be written as ONNX",
            where=origin(self.current),
            why=why,
        )

    def write_call(self, node: Node) -> None:
        """Write a call; the last ONNX node that its writer emits gets the name of its result."""
        from lvc.backends.onnx.operators import WRITERS

        self.current = node
        first = len(self.nodes)
        result = WRITERS[node.target](self, node)  # type: ignore[index]
        if len(self.nodes) == first or self.nodes[-1].output[0] != result:
            self.emit("Identity", result)
        last = self.nodes[-1]
        last.name, last.output[0] = node.name, self.names[node]


def write_onnx(model: Model, opset: int) -> bytes:
    """Return a model as ONNX, the same bytes for the same model; `CompileError` for what ONNX cannot say."""
    if model.bytes > _LARGEST:
        raise CompileError(
            f"the weights have {model.bytes} bytes, and an ONNX file holds at most 2 GiB",
            help="compress the model first, or build for another target",
        )
    writer = GraphWriter(model, opset)
    _declare_all(writer)
    for node in model.module.graph.nodes:
        if node.op == "get_attr":
            value = writer.stored(node)
            assert value is not None
            writer.store(writer.name(node), value)
        elif node.op == "call_function":
            writer.write_call(node)
    _write_outputs(writer)
    content: bytes = _assemble(writer).SerializeToString(deterministic=True)
    return content


def _declare_all(writer: GraphWriter) -> None:
    """Name every result: an output that is a call's own result goes by its name in the signature."""
    graph = writer.model.module.graph
    for node in graph.nodes:
        if node.op == "placeholder":
            writer.names[node] = str(node.target)
    for name, node in zip(writer.model.output_names, writer.model.output_nodes, strict=True):
        if node.op == "call_function" and node not in writer.names:
            writer.names[node] = name
    for node in graph.nodes:
        if node.op in ("get_attr", "call_function") and node not in writer.names:
            writer.declare(node, str(node.target) if node.op == "get_attr" else node.name)


def _write_outputs(writer: GraphWriter) -> None:
    """Copy results that leave the graph a second time, or that are inputs or weights, under their output names."""
    inputs = {value.name for value in writer.model.inputs}
    for name, node in zip(writer.model.output_names, writer.model.output_nodes, strict=True):
        if name in inputs:
            raise CompileError(f"an input and an output have the name '{name}'", why="ONNX needs names that differ")
        if writer.name(node) != name:
            writer.nodes.append(helper.make_node("Identity", [writer.name(node)], [name], name=f"{name}/copy"))


def _assemble(writer: GraphWriter) -> onnx.ModelProto:
    model = writer.model
    results = (node for node in model.module.graph.nodes if node.op == "call_function")
    outputs = set(model.output_names)
    read = {name for node in writer.nodes for name in read_from_outside(node)}  # not the floats of weights in integers
    graph = helper.make_graph(
        writer.nodes,
        model.name,
        [_value_info(value.name, value.spec) for value in model.inputs],
        [_value_info(value.name, value.spec) for value in model.outputs],
        [stored for name, stored in writer.initialisers.items() if name in read],
        value_info=[_value_info(writer.name(n), spec(n)) for n in results if writer.name(n) not in outputs],
    )
    opsets = [helper.make_opsetid("", writer.opset)]
    proto = helper.make_model(
        graph, producer_name="lvc", opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
    )
    properties = {f"{PROPERTY}{key}": json.dumps(value) for key, value in model.usage.items()}
    helper.set_model_props(proto, ({"source": model.source} if model.source else {}) | properties)
    return proto


def _value_info(name: str, value: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _TYPES[value.dtype], value.shape)
