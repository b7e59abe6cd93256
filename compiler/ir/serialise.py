"""A model as two files: ``graph.json`` and ``weights.bin``. Reading them runs no code and trusts nothing.

The graph is plain JSON: nodes in order, each an input, a stored tensor or a call of an operator of the dialect, and
the outputs by name. An argument is a JSON value; what JSON lacks is an object: ``{"node": NAME}``,
``{"dtype": "f32"}``, ``{"float": "inf"}``. Weights lie in the other file, little-endian, each at an offset that is a
multiple of 64.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.files import Content
from lvc.compiler.ir.counts import from_plain, to_plain, visible
from lvc.compiler.ir.dialect import BY_NAME
from lvc.compiler.ir.graph import MARKS, can_name_input, infer_spec, is_free, op_name, spec, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import ELEMENT_TYPES, TensorSpec, dtype_name, torch_dtype
from lvc.compiler.ir.task import check_task
from lvc.compiler.ir.verify import verify

GRAPH, WEIGHTS = "graph.json", "weights.bin"
_FORMAT = 1
_ALIGNMENT = 64
_LARGEST_GRAPH = 64 << 20
_LARGEST_TENSOR = 1 << 32
_DEEPEST = 8
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TENSOR_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)


def to_files(model: Model) -> dict[str, bytes]:
    """Write a model; the same model gives the same bytes."""
    weights = bytearray()
    nodes = [_write_node(model.module, node, weights) for node in model.module.graph.nodes if node.op != "output"]
    graph = {
        "format": _FORMAT,
        "name": model.name,
        "source": model.source,
        "preprocessing": model.preprocessing,
        "labels": model.labels,
        "notes": model.notes,
        **({"task": model.task} if model.task else {}),
        **({"counts": to_plain(model.counts)} if model.counts else {}),
        "nodes": nodes,
        "outputs": [[v.name, _write(n)["node"]] for v, n in zip(model.outputs, model.output_nodes, strict=True)],
    }
    text = json.dumps(graph, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return {GRAPH: text.encode(), WEIGHTS: bytes(weights)}


def tensor_bytes(value: torch.Tensor) -> bytes:
    """Return the elements of a tensor in order, little-endian."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride
    return flat.view(torch.uint8).numpy().tobytes()


def _write_node(module: GraphModule, node: Node, weights: bytearray) -> dict[str, Any]:
    written: dict[str, Any] = {"name": node.name, "origin": node.meta.get("origin", "")}
    if node.op == "placeholder":
        return written | {"name": str(node.target), "input": str(spec(node))}
    if node.op == "get_attr":
        value = tensor(module, node)
        assert value is not None
        weights.extend(bytes(-len(weights) % _ALIGNMENT))
        offset = len(weights)
        weights.extend(tensor_bytes(value))
        trainable = isinstance(value, torch.nn.Parameter)
        return written | {
            "tensor": str(node.target), "spec": str(spec(node)), "offset": offset, "trainable": trainable
        }  # fmt: skip
    written |= {"call": op_name(node), "args": _write(node.args)}
    if node.kwargs:
        written["kwargs"] = {key: _write(value) for key, value in node.kwargs.items()}
    written |= {key: node.meta[key] for key in ("group", *MARKS) if key in node.meta}
    return written


def _write(value: Any) -> Any:
    if isinstance(value, Node):
        return {"node": str(value.target) if value.op == "placeholder" else value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [_write(item) for item in value]
    assert value is None or isinstance(value, (bool, int, float, str)), f"{value!r} has no written form"
    return value


def from_files(files: Mapping[str, Content]) -> Model:
    """Read a model; `CompileError` for files that are damaged or were made to do harm."""
    try:
        return _read(files)
    except LvcError as error:
        raise CompileError(
            "the stored model is damaged", where=error.where, why=f"{error.what}: {error.why}".rstrip(": ")
        ) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise CompileError("the stored model is damaged", why=why.splitlines()[0]) from error


def _read(files: Mapping[str, Content]) -> Model:
    _demand(GRAPH in files and WEIGHTS in files, f"'{GRAPH}' or '{WEIGHTS}' is missing")
    _demand(len(files[GRAPH]) <= _LARGEST_GRAPH, f"'{GRAPH}' is larger than {_LARGEST_GRAPH} bytes")
    data = json.loads(bytes(files[GRAPH]))
    _demand(data["format"] == _FORMAT, f"its format is {data['format']!r}, and this version reads {_FORMAT}")
    reader = _Reader(files[WEIGHTS])
    for item in data["nodes"]:
        reader.node(item)
    outputs = [(_text(name), reader.nodes[node]) for name, node in data["outputs"]]
    reader.graph.output(tuple(node for _, node in outputs))
    model = Model(
        GraphModule(reader.root, reader.graph),
        name=_text(data["name"]),
        output_names=tuple(name for name, _ in outputs),
        source=_text(data["source"]),
        preprocessing=None if data["preprocessing"] is None else _text(data["preprocessing"]),
        labels=None if data["labels"] is None else tuple(map(_text, data["labels"])),
        notes=[_text(note) for note in data["notes"]],
    )
    model.counts = from_plain(data.get("counts"), model.outputs)
    if (task := data.get("task")) is not None:
        model.task = check_task(_text(task), model.inputs, visible(model.outputs, model.counts))
    verify(model)
    return model


class _Reader:
    """Builds the graph node by node; every name is checked, since torch.fx writes them into Python source."""

    def __init__(self, weights: Content) -> None:
        self.weights = weights
        self.root = torch.nn.Module()
        self.graph = Graph()
        self.nodes: dict[str, Node] = {}

    def node(self, item: dict[str, Any]) -> None:
        name = item["name"]
        _demand(isinstance(name, str) and bool(_NAME.fullmatch(name)), f"{name!r} cannot be the name of a node")
        if "input" in item:
            _demand(can_name_input(name) and name not in self.nodes, f"no input can have the name '{name}'")
            node = self.graph.create_node("placeholder", name, name=name)
            node.meta["spec"] = _spec(item["input"])
        elif "tensor" in item:
            node = self.tensor(name, item)
        else:
            node = self.call(name, item)
        is_named = node.op == "placeholder" or node.name == name
        _demand(is_named, f"two nodes have the name '{name}', or Python reserves it")
        node.meta["origin"] = _text(item["origin"])
        self.nodes[name] = node

    def tensor(self, name: str, item: dict[str, Any]) -> Node:
        target, kind, offset = item["tensor"], _spec(item["spec"]), item["offset"]
        _demand(isinstance(target, str) and bool(_TENSOR_NAME.fullmatch(target)), f"{target!r} cannot name a tensor")
        inside = isinstance(offset, int) and 0 <= offset <= len(self.weights) - kind.bytes
        _demand(inside, f"the values of '{target}' lie outside '{WEIGHTS}'")
        content = bytearray(self.weights[offset : offset + kind.bytes])
        flat = torch.frombuffer(content, dtype=kind.dtype) if content else torch.empty(0, dtype=kind.dtype)
        if kind.dtype is torch.bool:
            flat = flat.view(torch.uint8) != 0
        _demand(is_free(self.root, target), f"the name '{target}' is taken")
        trainable = item["trainable"] is True and kind.dtype.is_floating_point
        store(self.root, target, flat.reshape(kind.shape), trainable=trainable)
        node = self.graph.create_node("get_attr", target, name=name)
        node.meta["spec"] = kind
        return node

    def call(self, name: str, item: dict[str, Any]) -> Node:
        op = BY_NAME.get(item["call"])
        if op is None:
            raise CompileError(f"operator {item['call']!r} is not in the dialect")
        known = {argument.name for argument in op.overload._schema.arguments}
        kwargs = item.get("kwargs", {})
        _demand(set(kwargs) <= known, f"'{name}' has an argument that {op.name} does not take")
        node = self.graph.create_node(
            "call_function",
            op.overload,
            tuple(self.value(value) for value in item["args"]),
            {key: self.value(value) for key, value in kwargs.items()},
            name,
        )
        node.meta["spec"] = infer_spec(node)
        _demand(spec(node).bytes <= _LARGEST_TENSOR, f"the result of '{name}' is larger than {_LARGEST_TENSOR} bytes")
        if "group" in item:
            node.meta["group"] = _text(item["group"])
        for mark in MARKS:
            if mark in item:
                _demand(type(item[mark]) is int, f"the mark '{mark}' of '{name}' is no number")
                node.meta[mark] = item[mark]
        return node

    def value(self, value: Any, depth: int = 0) -> Any:
        _demand(depth < _DEEPEST, "an argument is nested too deep")
        if isinstance(value, list):
            return [self.value(part, depth + 1) for part in value]
        if not isinstance(value, dict):
            return value
        ((key, content),) = value.items()
        if key == "node":
            return self.nodes[content]
        if key == "dtype":
            return torch_dtype(ELEMENT_TYPES[content])
        return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[content]


def _spec(text: Any) -> TensorSpec:
    kind = TensorSpec.parse(_text(text))
    _demand(all(size >= 0 for size in kind.shape), f"{kind} has a negative size")
    _demand(kind.bytes <= _LARGEST_TENSOR, f"{kind} is larger than {_LARGEST_TENSOR} bytes")
    return kind


def _text(value: Any) -> str:
    _demand(isinstance(value, str), f"{value!r} is not text")
    return str(value)


def _demand(held: bool, why: str) -> None:
    if not held:
        raise CompileError(why)
