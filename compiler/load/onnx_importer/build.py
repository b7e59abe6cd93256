"""Build the graph: node by node through the converters, constants folded on the way, refusals collected."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate

from lvc.compiler.errors import CompileError, LvcError
from lvc.compiler.ir.graph import erase_dead, free_name, infer_spec, store
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.onnx_importer.call import CONVERTERS, Call, Converter
from lvc.compiler.load.onnx_importer.idioms import recompose
from lvc.compiler.load.onnx_importer.ops.quantise import keeps_parameters, on_real_numbers
from lvc.compiler.load.onnx_importer.problems import Problem, summary
from lvc.compiler.load.onnx_importer.schemas import check_types
from lvc.compiler.load.onnx_importer.trainable import settle_trainable
from lvc.compiler.load.onnx_importer.values import (
    Constant,
    Unsupported,
    Value,
    check_size,
    input_name,
    safe_name,
    safe_path,
    to_torch,
)

STANDARD_DOMAINS = ("", "ai.onnx", None)


def load_converters() -> frozenset[str]:
    """Import every family of converters of this package; return the operators that they know."""
    from lvc.compiler.load.onnx_importer import ops

    for item in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{item.name}")
    return frozenset(CONVERTERS)


class Builder:
    """A graph that grows. ``values`` holds what each ONNX tensor became: None for one that could not be made."""

    def __init__(self, opset: int, outputs: Sequence[gs.Tensor]) -> None:
        self.opset = opset
        self.outputs = tuple(outputs)
        self._closing = {tensor.name for tensor in outputs}
        self.module = GraphModule(torch.nn.Module(), Graph())
        self.values: dict[str, Value | None] = {}
        self.quantised: dict[Node, Any] = {}
        self.readers: Counter[Node] = Counter()
        self.problems: list[Problem] = []
        self._stored: dict[int, tuple[torch.Tensor, Node]] = {}

    def add_input(self, tensor_name: str, spec: TensorSpec) -> Node:
        name = input_name(tensor_name)
        while any(node.op == "placeholder" and node.target == name for node in self.module.graph.nodes):
            name = f"{name}_"
        node = self.module.graph.create_node("placeholder", name, name=name)
        node.meta["spec"] = spec
        node.meta["origin"] = f"input {tensor_name}"
        self.values[tensor_name] = node
        return node

    def add_nodes(self, nodes: Sequence[gs.Node]) -> None:
        """Convert nodes in order. What cannot be expressed is collected; what depends on it is only looked at."""
        for node in nodes:
            names = [tensor.name for tensor in node.outputs]
            known = all(self._value(tensor) is not None for tensor in node.inputs if tensor.name)
            results: list[Value | None] = [None] * len(names)
            try:
                converter = _converter(node)
                if known:
                    results = self._convert(node, converter)
            except Unsupported as refusal:
                self.problems.append(Problem(_name(node), _operator(node), str(refusal)))
            self.values.update((name, result) for name, result in zip(names, results, strict=False) if name)
            for tensor, result in zip(node.outputs, results, strict=False):
                if isinstance(result, Node):
                    self.readers[result] += len(tensor.outputs) + (tensor.name in self._closing)

    def finish(self) -> GraphModule:
        """Close the graph, or raise the one error that lists every refusal."""
        if self.problems:
            raise CompileError(
                f"{len(self.problems)} node(s) cannot be compiled",
                why="\n".join(summary(self.problems)),
                help="export the model without them, or cut it before them",
            )
        results = []
        for tensor in self.outputs:
            value = self._value(tensor)
            assert value is not None, "a refusal that is not listed"
            results.append(self._as_node(value, tensor.name))
        self.module.graph.output(tuple(results))
        recompose(self.module)
        erase_dead(self.module)
        settle_trainable(self.module)
        self.module.recompile()
        return self.module

    def emit(
        self,
        overload: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        name: str,
        origin: str,
        fold: bool = True,
    ) -> Value:
        """Add one call; compute it instead if every tensor operand is constant. A mark is a call in any case."""
        operands: list[Value] = []
        map_aggregate((tuple(args), dict(kwargs)), lambda a: operands.append(a) if isinstance(a, Value) else None)
        if fold and operands and overload is not counted and all(isinstance(operand, Constant) for operand in operands):
            return _fold(overload, args, kwargs, any(o.trainable for o in operands if isinstance(o, Constant)))
        names = iter(argument.name for argument in overload._schema.arguments)
        placed = tuple(self._place(arg, f"{name}.{next(names)}") for arg in args)
        named = {key: self._place(arg, f"{name}.{key}") for key, arg in kwargs.items()}
        node = self.module.graph.create_node("call_function", overload, placed, named, name=safe_name(name))
        node.meta["origin"] = origin
        node.meta["spec"] = check_size(infer_spec(node))
        return node

    def branch(self, graph: gs.Graph, call: Call, given: Sequence[Value] = ()) -> list[Value]:
        """Convert the nodes of a graph inside a node, with values for its inputs; its names end with it."""
        outer, closing = dict(self.values), set(self._closing)
        if len(given) != len(graph.inputs):
            raise ValueError(f"its graph takes {len(graph.inputs)} inputs, {len(given)} given")
        self.values.update((tensor.name, value) for tensor, value in zip(graph.inputs, given, strict=True))
        self._closing.update(tensor.name for tensor in graph.outputs)
        self.add_nodes(graph.nodes)
        results = [self._value(tensor) for tensor in graph.outputs]
        self.values, self._closing = outer, closing
        if any(result is None for result in results):
            raise Unsupported("holds a node that cannot be compiled")
        return [result for result in results if result is not None]

    def known(self, tensor: gs.Tensor) -> Value | None:
        """What a tensor around a graph became; None if it could not be made."""
        return self._value(tensor)

    def _convert(self, node: gs.Node, converter: Converter) -> list[Value | None]:
        names = [tensor.name for tensor in node.outputs]
        read = frozenset(t.name for t in node.outputs if t.name and (t.outputs or t.name in self._closing))
        operands = [self._value(tensor) if tensor.name else None for tensor in node.inputs]
        call = Call(_operator(node), _name(node), self.opset, operands, node.attrs, names, read, self)
        check_types(call, [tensor.name for tensor in node.inputs])
        try:
            result = on_real_numbers(call, converter) if keeps_parameters(call) else converter(call)
        except (LvcError, Unsupported):
            raise
        except Exception as error:  # attributes and shapes of an untrusted file go wrong in many types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CompileError(f"{node.op} cannot be read", where=call.origin, why=reason) from error
        results: list[Value | None] = [result] if isinstance(result, Value) else list(result)
        lost = next((name for name in names[len(results) :] if name in read), None)
        if lost is not None:
            raise Unsupported(f"is asked for '{lost}', a result that is not in the dialect")
        return results

    def _value(self, tensor: gs.Tensor) -> Value | None:
        """Return what a tensor became, reading it if it is stored in the file."""
        if tensor.name not in self.values:
            if not isinstance(tensor, gs.Constant):
                raise CompileError(
                    f"no node makes the tensor '{tensor.name}'",
                    why="the model's graph is incomplete",
                    help="export the model again; a tool that cut it may have left out the node",
                )
            self.values[tensor.name] = self._read(tensor)
        return self.values[tensor.name]

    def _read(self, tensor: gs.Constant) -> Constant | None:
        try:
            value = to_torch(tensor.values)
        except Unsupported as refusal:
            self.problems.append(Problem(tensor.name, "the stored tensor", f"cannot be used, {refusal}"))
            return None
        except Exception as error:  # a broken header raises what numpy and protobuf raise
            raise CompileError(f"the stored tensor '{tensor.name}' is broken", why=str(error)) from error
        return Constant(value, tensor.name, trainable=value.is_floating_point() and value.numel() > 1)

    def _place(self, argument: Any, hint: str) -> Any:
        return map_aggregate(argument, lambda a: self._as_node(a, hint) if isinstance(a, Constant) else a)

    def _as_node(self, value: Value, hint: str) -> Node:
        """Return the node of a value; a constant is stored in the module under its name, once."""
        if isinstance(value, Node):
            return value
        if id(value.tensor) not in self._stored:
            path = free_name(self.module, safe_path(value.name or hint))
            store(self.module, path, value.tensor, trainable=value.trainable)
            node = self.module.graph.create_node("get_attr", path, name=safe_name(path))
            node.meta["spec"] = TensorSpec.of(value.tensor)
            node.meta["origin"] = f"initialiser {value.name}" if value.name else hint
            self._stored[id(value.tensor)] = (value.tensor, node)
        return self._stored[id(value.tensor)][1]


def _fold(overload: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], trainable: bool) -> Constant:
    """Compute a call whose operands are all constant; refuse a result that is far too large to be a weight."""

    def call(place: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        def fill(argument: Any) -> Any:
            return place(argument.tensor) if isinstance(argument, Constant) else argument

        result = overload(*map_aggregate(tuple(args), fill), **map_aggregate(dict(kwargs), fill))
        assert isinstance(result, torch.Tensor)
        return result

    check_size(TensorSpec.of(call(lambda tensor: tensor.to("meta"))))
    with torch.no_grad():
        result = call(lambda tensor: tensor)
    result = result.clone(memory_format=torch.contiguous_format) if result._is_view() else result.contiguous()
    return Constant(result, trainable=trainable and result.is_floating_point())


def _converter(node: gs.Node) -> Converter:
    """Return what converts a node; `Unsupported` if nothing does."""
    if _operator(node) in CONVERTERS:
        return CONVERTERS[_operator(node)]
    raise Unsupported("has no converter" if node.domain in STANDARD_DOMAINS else "is a custom operator")


def _name(node: gs.Node) -> str:
    return str(node.name) or next((tensor.name for tensor in node.outputs if tensor.name), node.op)


def _operator(node: gs.Node) -> str:
    return node.op if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op}"
