"""The graph of an exported program, from JSON to a trace."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.spec import TensorSpec
from lvc.compiler.load.exported_sizes import Sizes, is_about_sizes
from lvc.compiler.load.exported_tensors import DTYPES, TensorReader
from lvc.compiler.load.normalise.open_lengths import is_open
from lvc.compiler.load.normalise.refusal import unknown_operators
from lvc.compiler.load.normalise.rules import find_operator
from lvc.compiler.load.normalise.trace import Stored, Trace
from lvc.compiler.load.origins import origin_of
from lvc.compiler.load.outputs import changes_state, name_outputs

_PLAIN = ("as_int", "as_ints", "as_floats", "as_bool", "as_bools", "as_string", "as_strings")
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_SHAPED = (torch.ops.aten.view.default, torch.ops.aten.reshape.default, torch.ops.aten._unsafe_view.default)
"""What may be told the length of a list, since it is known from the list as well."""
_STORED = {
    "parameter": ("parameter_name", True),
    "buffer": ("buffer_name", False),
    "tensor_constant": ("tensor_constant_name", False),
}


class GraphReader:
    """Builds a trace from an exported program; ``shapes`` fixes the open sizes of inputs."""

    def __init__(
        self, program: dict[str, Any], tensors: TensorReader, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.content = program["graph_module"]
        self.given = shapes or {}
        self.sizes = Sizes(program.get("range_constraints") or {})
        self.tensors = tensors
        self.trace = Trace(Graph(), {}, {}, ())
        self.nodes: dict[str, Node] = {}
        self.open_lists: set[Node] = set()
        self.open_numbers: set[str] = set()

    def read(self) -> Trace:
        calls = self.content["graph"]["nodes"]
        self._check_operators(calls)
        for given in self.content["signature"]["input_specs"]:
            self._input(given)
        self.sizes.check_ranges()
        for call in calls:
            self._call(call)
        self._outputs(self.content["signature"]["output_specs"])
        return self.trace

    def _check_operators(self, calls: list[dict[str, Any]]) -> None:
        """List all operators that lvc does not know before any is looked up: a name in a file can name anything."""
        unknown: dict[str, list[str]] = {}
        for call in calls:
            if not is_about_sizes(call) and find_operator(call["target"]) is None:
                unknown.setdefault(call["target"].removeprefix("torch.ops."), []).append(_origin(call)[0])
        if unknown:
            raise unknown_operators(unknown)

    def _input(self, given: dict[str, Any]) -> None:
        ((kind, content),) = given.items()
        if kind == "user_input":
            name = content["arg"]["as_tensor"]["name"]
            self._user_input(name)
        elif kind in _STORED:
            key, trainable = _STORED[kind]
            name = content[key]
            kept = kind != "tensor_constant" and content.get("persistent", True)
            value = self.tensors.weight(name) if kept else self.tensors.constant(name)
            node = self._placeholder(content["arg"]["name"])
            self.trace.stored[node] = Stored(name, value, trainable and value.is_floating_point())
            self.sizes.keep(node, value.shape, value.dtype)
        elif kind != "constant_input":
            raise CompileError(f"the program takes an input of kind '{kind}'", why="inputs must be tensors")

    def _placeholder(self, name: str) -> Node:
        node = self.trace.graph.create_node("placeholder", f"value_{len(self.nodes)}")
        self.nodes[name] = node
        return node

    def _user_input(self, name: str) -> None:
        meta = self.content["graph"]["tensor_values"][name]
        shape, dtype = self.sizes.fix(name, meta["sizes"], self.given.get(name)), DTYPES[meta["dtype"]]
        node = self._placeholder(name)
        self.trace.inputs[node] = (name, TensorSpec(shape, dtype))
        self.sizes.keep(node, shape, dtype)

    def _call(self, call: dict[str, Any]) -> None:
        open_numbers = self.open_numbers & _size_names(call["inputs"])
        if is_about_sizes(call):
            arguments = [self._value(item["arg"]) for item in call["inputs"]]
            self.sizes.call(call, arguments)
            if open_numbers or self.open_lists.intersection(a for a in arguments if isinstance(a, Node)):
                self.open_numbers |= _size_names(call["outputs"])
            return
        overload = find_operator(call["target"])
        assert overload is not None
        args, kwargs = _bind(overload, {item["name"]: self._value(item["arg"]) for item in call["inputs"]})
        if open_numbers:
            args = self._reshaped(call, overload, args)
        node = self.trace.graph.call_function(overload, args, kwargs)
        node.meta["origin"], node.meta["path"] = _origin(call)
        if self._is_open(node, overload):
            self.open_lists.add(node)
        outputs = call["outputs"]
        if len(outputs) == 1 and "as_tensor" in outputs[0]:
            self.nodes[outputs[0]["as_tensor"]["name"]] = node
            return
        parts = outputs[0]["as_tensors"] if len(outputs) == 1 else [part.get("as_tensor") for part in outputs]
        for i, part in enumerate(parts):
            if part is not None:
                item = self.trace.graph.call_function(operator.getitem, (node, i))
                item.meta.update(node.meta)
                self.open_lists.update({item} if node in self.open_lists else ())
                self.nodes[part["name"]] = item

    def _reshaped(self, call: dict[str, Any], overload: OpOverload, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a call that is told the length of an open list, which is what the other sizes leave over."""
        none: list[dict[str, Any]] = []
        sizes = next((item["arg"]["as_sym_ints"] for item in call["inputs"] if "as_sym_ints" in item["arg"]), none)
        told = [place for place, size in enumerate(sizes) if size.get("as_name") in self.open_numbers]
        if overload not in _SHAPED or len(told) != 1:
            raise CompileError(
                f"{call['target'].removeprefix('torch.ops.')} computes with a length that depends on the data",
                where=_origin(call)[0],
                why="lvc has such a list at its largest length, so that its length would be another number",
                help="give the model to lvc as Python code, or let it count by a sum over the mask",
            )
        return args[0], [-1 if place in told else size for place, size in enumerate(args[1])]

    def _is_open(self, node: Node, overload: OpOverload) -> bool:
        """Whether the length of a result, or of something that it was made of, depends on the data."""
        if self.open_lists.intersection(node.all_input_nodes):
            return True
        if overload is torch.ops.aten.index.Tensor:
            given = cast("list[Node | None]", node.args[1])
            indices = [index and self.sizes.value(index) for index in given]
            return is_open(overload, (None, indices))
        return is_open(overload, ())

    def _value(self, argument: dict[str, Any]) -> Any:
        ((kind, content),) = argument.items()
        if kind in _PLAIN:
            return content
        if kind == "as_float":
            return _INFINITE[content] if isinstance(content, str) else content
        if kind == "as_tensor":
            return self.nodes[content["name"]]
        if kind == "as_tensors":
            return [self.nodes[item["name"]] for item in content]
        if kind == "as_optional_tensors":
            return [self.nodes[item["as_tensor"]["name"]] if "as_tensor" in item else None for item in content]
        if kind == "as_sym_ints":
            return [self.sizes.number(item) for item in content]
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self.sizes.number(content)
        if kind == "as_complex":
            return complex(content["real"], content["imag"])
        if kind == "as_scalar_type":
            return DTYPES[content]
        if kind == "as_device":
            return torch.device("cpu")
        if kind in ("as_none", "as_memory_format", "as_layout"):
            return None
        raise CompileError(f"the program passes an argument of kind '{kind.removeprefix('as_')}'")

    def _outputs(self, specs: list[dict[str, Any]]) -> None:
        results: list[Node | None] = []
        for made in specs:
            ((kind, content),) = made.items()
            if kind not in ("user_output", "loss_output"):
                raise changes_state(str(next((v for k, v in content.items() if k != "arg"), kind)))
            arg = content["arg"].get("as_tensor") if kind == "user_output" else content["arg"]
            results.append(self.nodes[arg["name"]] if arg else None)
        self.trace.output_names = self._output_names(results)
        self.trace.graph.output(tuple(node for node in results if node is not None))

    def _output_names(self, results: list[Node | None]) -> tuple[str, ...]:
        """Name outputs by the structure that the model returned; tensors without elements stand for the real ones."""
        leaves = [None if node is None else torch.empty(0) for node in results]
        _, spec = json.loads(self.content["module_call_graph"][0]["signature"]["out_spec"])
        return tuple(name for name, _ in name_outputs(_structure(spec, iter(leaves))))


def _size_names(arguments: list[dict[str, Any]]) -> set[str]:
    """The names of sizes among the inputs or outputs of a call."""
    found = set()
    for item in arguments:
        ((_, content),) = item.get("arg", item).items()
        parts = content if isinstance(content, list) else [content]
        found |= {part["as_name"] for part in parts if isinstance(part, dict) and "as_name" in part}
    return found


def _structure(spec: dict[str, Any], leaves: Any) -> Any:
    if spec["type"] is None:
        return next(leaves)
    parts = [_structure(child, leaves) for child in spec["children_spec"]]
    if spec["type"] in ("builtins.dict", "collections.OrderedDict"):
        return dict(zip(json.loads(spec["context"]), parts, strict=True))
    return tuple(parts)


def _bind(overload: OpOverload, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Sort arguments by name into positional ones, with defaults for those between, and the rest."""
    schema = overload._schema.arguments
    places = [argument for argument in schema if not argument.kwarg_only]
    last = max((i for i, argument in enumerate(places) if argument.name in given), default=-1)
    args = tuple(given.get(argument.name, argument.default_value) for argument in places[: last + 1])
    return args, {a.name: given[a.name] for a in schema if a.kwarg_only and given.get(a.name) is not None}


def _origin(call: dict[str, Any]) -> tuple[str, str]:
    metadata = call.get("metadata", {})
    entries = [entry.split(",") for entry in metadata.get("nn_module_stack", "").split(";")]
    modules = [(entry[1], entry[2]) for entry in entries if len(entry) == 3]
    outputs = call.get("outputs") or [{}]
    name = outputs[0].get("as_tensor", {}).get("name", call["target"])
    return origin_of(modules, metadata.get("stack_trace", ""), name)
