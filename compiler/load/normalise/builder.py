"""Writes a graph in the dialect, evaluating at once whatever depends on constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import can_name_input, free_name, infer_spec, store
from lvc.compiler.ir.operators.counted import counted
from lvc.compiler.ir.spec import TensorSpec

LARGEST_CONSTANT = 1 << 30


class Unsupported(Exception):
    """A rule cannot spell a call in the dialect; the message says why."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor while a graph is written: the result of a node, a stored tensor, or a constant.

    ``value`` is set for the latter two. A stored tensor that can be trained is never folded into other values.
    """

    spec: TensorSpec
    node: Node | None = None
    value: torch.Tensor | None = None
    name: str = ""
    trainable: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def rank(self) -> int:
        return len(self.spec.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.spec.dtype

    @property
    def is_constant(self) -> bool:
        return self.value is not None and not self.trainable


Result = Operand | tuple[Operand, ...]


class Builder:
    """Appends calls to a new graph.

    ``origin`` and ``path`` name the place in the user's model that is being written: the first for messages, the
    second as the module path under which new constants are stored.
    """

    def __init__(self) -> None:
        self.module = GraphModule(torch.nn.Module(), Graph())
        self.origin = ""
        self.path = ""
        self._stored: dict[object, Node] = {}
        self._numbers: dict[tuple[float, torch.dtype], Operand] = {}

    def input(self, name: str, spec: TensorSpec) -> Operand:
        name = name if can_name_input(name) else f"{name}_"
        node = self.module.graph.create_node("placeholder", name, name=name)
        node.meta.update(spec=spec, origin=f"input {name}")
        return Operand(spec, node)

    def constant(self, value: torch.Tensor, name: str = "") -> Operand:
        """A tensor that is known now. It enters the graph, as a buffer, when a call that stays reads it."""
        return Operand(TensorSpec.of(value), value=value.detach(), name=name)

    def parameter(self, value: torch.Tensor, name: str) -> Operand:
        """A stored tensor that can be trained, so that what is computed from it stays in the graph."""
        return Operand(TensorSpec.of(value), value=value.detach(), name=name, trainable=True)

    def number(self, value: float, like: torch.dtype) -> Operand:
        """A number as a constant of rank 0, of the type that it takes beside a tensor of type ``like``."""
        fits = isinstance(value, int) or like.is_floating_point
        dtype = like if fits and not (like is torch.bool and not isinstance(value, bool)) else torch.float32
        return self.scalar(value, dtype)

    def scalar(self, value: float, dtype: torch.dtype) -> Operand:
        """A number as a constant of rank 0 and of a given type."""
        if (value, dtype) not in self._numbers:
            self._numbers[value, dtype] = self.constant(torch.tensor(value, dtype=dtype), "number")
        return self._numbers[value, dtype]

    def call(self, overload: OpOverload, *args: Any, **kwargs: Any) -> Operand:
        """Append a call, or evaluate it if all its operands are constants; a mark is a call in any case."""
        operands = operands_of(args, kwargs)
        if operands and overload is not counted and all(operand.is_constant for operand in operands):
            result = evaluate(self, overload, args, kwargs)
            assert isinstance(result, Operand)
            return result
        args, kwargs = self._read(args), self._read(kwargs)
        node = self.module.graph.create_node("call_function", overload, args, kwargs, _short_name(overload))
        node.meta["origin"] = self.origin
        node.meta["spec"] = infer_spec(node)
        return Operand(node.meta["spec"], node)

    def opaque(self, overload: OpOverload, results: Any) -> Result:
        """Operands with the specs of an illegal call's results, so that the rest of the graph can still be read."""
        if not isinstance(results, torch.Tensor):
            parts = [self.opaque(overload, result) for result in results]
            return tuple(part for part in parts if isinstance(part, Operand))
        node = self.module.graph.call_function(overload)
        node.meta.update(spec=TensorSpec.of(results), origin=self.origin)
        return Operand(node.meta["spec"], node)

    def node(self, operand: Operand) -> Node:
        """The node that yields an operand; a stored tensor gets one when it is first read."""
        if operand.node is not None:
            return operand.node
        assert operand.value is not None
        key = identity(operand.value)
        if key not in self._stored:
            self._stored[key] = self._store(operand, operand.value)
        return self._stored[key]

    def output(self, operands: Sequence[Operand]) -> None:
        node = self.module.graph.output(tuple(self.node(operand) for operand in operands))
        node.meta["origin"] = "output"

    def _read(self, args: Any) -> Any:
        return map_aggregate(args, lambda arg: self.node(arg) if isinstance(arg, Operand) else arg)

    def _store(self, operand: Operand, value: torch.Tensor) -> Node:
        name = free_name(self.module, operand.name or (f"{self.path}.constant" if self.path else "constant"))
        is_own = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        store(
            self.module,
            name,
            value if is_own else value.clone(memory_format=torch.contiguous_format),
            trainable=operand.trainable,
        )
        node = self.module.graph.create_node("get_attr", name)
        node.meta.update(spec=operand.spec, origin=name)
        return node


Rule = Callable[..., Result]


def operands_of(*args: Any) -> list[Operand]:
    """Every operand among the arguments of a call, however deep."""
    found: list[Operand] = []
    map_aggregate(args, lambda arg: found.append(arg) if isinstance(arg, Operand) else None)
    return found


def evaluate(b: Builder, overload: OpOverload, args: Any, kwargs: Any) -> Result:
    """Run a call on constants and return its results as constants; refuses to make a tensor of more than 1 GiB."""
    _bound(b, overload, *specs_only((args, kwargs)))
    args, kwargs = map_aggregate((args, kwargs), lambda arg: arg.value if isinstance(arg, Operand) else arg)
    with torch.no_grad():
        result = call_on_cpu(overload, args, kwargs)
    if isinstance(result, torch.Tensor):
        return b.constant(result)
    return tuple(b.constant(part) for part in result)


def call_on_meta(overload: OpOverload, args: Any, kwargs: Any) -> Any:
    """Run a call on tensors without data, wherever it says that its result shall lie."""
    return _call_on("meta", overload, args, kwargs)


def call_on_cpu(overload: OpOverload, args: Any, kwargs: Any) -> Any:
    """Run a call, wherever it says that its result shall lie."""
    return _call_on("cpu", overload, args, kwargs)


def specs_only(args: Any) -> Any:
    """Arguments with a tensor without data in the place of each operand."""

    def empty(arg: Any) -> Any:
        return torch.empty(arg.shape, dtype=arg.dtype, device="meta") if isinstance(arg, Operand) else arg

    return map_aggregate(args, empty)


def _call_on(device: str, overload: OpOverload, args: Any, kwargs: Any) -> Any:
    place = torch.device(device)
    args, kwargs = map_aggregate((args, kwargs), lambda arg: place if isinstance(arg, torch.device) else arg)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("layout", "pin_memory")}
    if any(argument.name == "device" and argument.kwarg_only for argument in overload._schema.arguments):
        kwargs["device"] = place
    return overload(*args, **kwargs)


def _bound(b: Builder, overload: OpOverload, args: Any, kwargs: Any) -> None:
    try:
        result = call_on_meta(overload, args, kwargs)
    except NotImplementedError:  # the shape depends on data, as for an index by booleans: never more than the operands
        return
    parts = [result] if isinstance(result, torch.Tensor) else result
    size = sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)
    if size > LARGEST_CONSTANT:
        why = f"{overload} would make {size / 2**30:.1f} GiB"
        raise CompileError("a constant is too large", where=b.origin, why=why)


def _short_name(overload: OpOverload) -> str:
    return overload._schema.name.rpartition(":")[2]


def identity(value: torch.Tensor) -> object:
    """What two tensors have in common if they are the same elements in memory."""
    storage = value.untyped_storage()
    if storage.nbytes() == 0:
        return id(value)
    return storage.data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype
