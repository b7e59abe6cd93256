"""The printed form of a model, written and read: dumps, golden tests, and models small enough to type.

    model NAME(INPUT: SPEC, ...)
      @WEIGHT : SPEC [= LITERAL]                     a stored tensor; without a literal, values drawn from its name
      %NODE = OP(ARGUMENT, ..., KEY=ARGUMENT) [: SPEC] [group=NODE] [winograd=TILE] [tf32=1]
      return OUTPUT=%NODE, ...

An argument is ``%NODE``, ``@WEIGHT``, a number, ``"text"``, True, False, None, a dtype such as ``f32``, or a list of
these in brackets. Lines that start with ``#`` are skipped.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.ir.dialect import BY_NAME
from lvc.compiler.ir.graph import MARKS, infer_spec, is_free, op_name, spec, store, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.spec import ELEMENT_TYPES, TensorSpec, dtype_name, torch_dtype

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|-?\d[\d.]*(?:e[+-]?\d+)?|[%@-]?[\w.]+|[()\[\],=])')
_HEAD = re.compile(r"model (\S+?)\((.*)\)")
_WEIGHT = re.compile(r"@([\w.]+) : (\w+\[[\d,]*\])(?: = (.+))?")
_MARKS = rf"(?:\s+(?:{'|'.join(('group', *MARKS))})=\w+)*"
_CALL = re.compile(rf"%(\w+) = ([\w.]+)(\(.*\))(?: : (\w+\[[\d,]*\]))?({_MARKS})")
_WORDS: dict[str, Any] = {"True": True, "False": False, "None": None, "inf": float("inf"), "nan": float("nan")}
_LONGEST_LITERAL = 16


def format_model(model: Model) -> str:
    """Print a model, one node a line. Reading it back and printing again gives the same text."""
    lines = [f"model {model.name}({', '.join(map(str, model.inputs))})"]
    for node in model.module.graph.nodes:
        if node.op == "get_attr":
            lines.append(f"  {_format_weight(model.module, node)}")
        elif node.op == "call_function":
            lines.append(f"  {_format_call(node)}")
    outputs = (f"{v.name}={_format(n)}" for v, n in zip(model.outputs, model.output_nodes, strict=True))
    return "\n".join([*lines, f"  return {', '.join(outputs)}", ""])


def _format_weight(module: GraphModule, node: Node) -> str:
    value = tensor(module, node)
    assert value is not None
    line = f"@{node.target} : {spec(node)}"
    if value.numel() and bool((value == value.reshape(-1)[0]).all()):
        return f"{line} = {_format(value.reshape(-1)[0].item())}"
    if not value.is_floating_point() and value.numel() <= _LONGEST_LITERAL:
        return f"{line} = {_format(value.reshape(-1).tolist())}"
    return line


def _format_call(node: Node) -> str:
    args = [_format(a) for a in node.args] + [f"{k}={_format(v)}" for k, v in node.kwargs.items()]
    marks = "".join(f"  {key}={node.meta[key]}" for key in ("group", *MARKS) if key in node.meta)
    return f"%{node.name} = {op_name(node)}({', '.join(args)}) : {spec(node)}{marks}"


def _format(value: object) -> str:
    if isinstance(value, Node):
        if value.op == "get_attr":
            return f"@{value.target}"
        return f"%{value.target if value.op == 'placeholder' else value.name}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_format(v) for v in value) + "]"
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    return json.dumps(value) if isinstance(value, str) else str(value)


def parse_model(text: str) -> Model:
    """Read the printed form; a weight without a literal gets random values that depend on its name alone.

    Variances (a name that ends in ``var``) are drawn from [0.5, 1.5), other floats from a normal distribution,
    integers from 0 and 1. Raises `CompileError` with the line number.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                reader.line(line.strip())
            except LvcError as error:
                raise CompileError(error.what, where=f"line {number}: {line.strip()}", why=error.why) from error
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.root = torch.nn.Module()
        self.graph = Graph()
        self.nodes: dict[str, Node] = {}
        self.name = ""
        self.output_names: tuple[str, ...] | None = None

    def line(self, line: str) -> None:
        if head := _HEAD.fullmatch(line):
            self.name = head[1]
            for part in re.findall(r"(\w+): (\w+\[[\d,]*\])", head[2]):
                self.input(*part)
        elif weight := _WEIGHT.fullmatch(line):
            self.weight(weight[1], TensorSpec.parse(weight[2]), weight[3])
        elif call := _CALL.fullmatch(line):
            self.call(*call.groups())
        elif line.startswith("return "):
            parts = re.findall(r"([^\s=,]+)=([%@][\w.]+)", line.removeprefix("return "))
            self.output_names = tuple(name for name, _ in parts)
            self.graph.output(tuple(self.node(key) for _, key in parts))
        else:
            raise CompileError("this line is neither a head, a weight, a call nor a return")

    def input(self, name: str, kind: str) -> None:
        node = self.graph.placeholder(name)
        node.meta.update(spec=TensorSpec.parse(kind), origin=name)
        self.nodes[f"%{name}"] = node

    def weight(self, name: str, kind: TensorSpec, literal: str | None) -> None:
        if literal is None:
            value = _draw(name, kind)
        else:
            given, _ = _parse(_tokens(literal), 0, {})
            value = torch.tensor(given, dtype=kind.dtype)
            value = value.reshape(kind.shape) if isinstance(given, list) else value.expand(kind.shape).contiguous()
        if not is_free(self.root, name):
            raise CompileError(f"no weight can have the name '{name}' here")
        store(self.root, name, value)
        node = self.graph.create_node("get_attr", name)
        node.meta.update(spec=kind, origin=name)
        self.nodes[f"@{name}"] = node

    def call(self, name: str, op: str, arguments: str, kind: str | None, marks: str) -> None:
        if op not in BY_NAME:
            raise CompileError(f"operator '{op}' is not in the dialect")
        args, kwargs = _parse_arguments(arguments, self.nodes)
        node = self.graph.create_node("call_function", BY_NAME[op].overload, args, kwargs, name)
        node.meta.update(origin=name, spec=infer_spec(node))
        if kind is not None and spec(node) != TensorSpec.parse(kind):
            raise CompileError(f"the line says {kind}, and the operands give {spec(node)}")
        for key, value in re.findall(r"(\w+)=(\w+)", marks):
            node.meta[key] = int(value) if key in MARKS else value
        self.nodes[f"%{name}"] = node

    def node(self, key: str) -> Node:
        if key not in self.nodes:
            raise CompileError(f"'{key}' is not known at this line")
        return self.nodes[key]

    def finish(self) -> Model:
        if self.output_names is None:
            raise CompileError("the text has no return line")
        return Model(GraphModule(self.root, self.graph), self.name, self.output_names, source="text")


def _draw(name: str, kind: TensorSpec) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if not kind.dtype.is_floating_point:
        return torch.randint(0, 2, kind.shape, generator=generator).to(kind.dtype)
    if name.endswith("var"):
        return (torch.rand(kind.shape, generator=generator) + 0.5).to(kind.dtype)
    return torch.randn(kind.shape, generator=generator).to(kind.dtype)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if not found:
            raise CompileError(f"cannot read '{text[at:].strip()}'")
        tokens.append(found[1])
        at = found.end()
    return tokens


def _parse_arguments(text: str, nodes: dict[str, Node]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    tokens, at = _tokens(text), 1
    args, kwargs = [], {}
    while tokens[at] != ")":
        if tokens[at + 1] == "=":
            kwargs[tokens[at]], at = _parse(tokens, at + 2, nodes)
        else:
            value, at = _parse(tokens, at, nodes)
            args.append(value)
        at += tokens[at] == ","
    return tuple(args), kwargs


def _parse(tokens: list[str], at: int, nodes: dict[str, Node]) -> tuple[Any, int]:
    """Read one value that starts at a token; return it and the place after it."""
    token, at = tokens[at], at + 1
    if token == "[":
        items: list[Any] = []
        while tokens[at] != "]":
            item, at = _parse(tokens, at, nodes)
            items.append(item)
            at += tokens[at] == ","
        return items, at + 1
    return _parse_scalar(token, nodes), at


def _parse_scalar(token: str, nodes: dict[str, Node]) -> Any:
    if token[0] in "%@":
        if token not in nodes:
            raise CompileError(f"'{token}' is not known at this line")
        return nodes[token]
    if token[0] == '"':
        return json.loads(token)
    if token == "-inf":
        return float("-inf")
    if token in _WORDS:
        return _WORDS[token]
    if token in ELEMENT_TYPES:
        return torch_dtype(token)
    try:
        return int(token) if token.lstrip("-").isdigit() else float(token)
    except ValueError:
        raise CompileError(f"cannot read '{token}'") from None
