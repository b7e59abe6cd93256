"""One call of a graph that reads values of open length: what is known of them, and the ways to leave the rest out."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import add_tensor, arguments, insert_call, op_name, origin, spec

Lengths = Mapping[int, Node]
"""How many elements of a value are valid, as ``i64[]``, along each of its dimensions that is open."""


class Scalars:
    """Counts that are computed of others, and masks made of them. The same is made once, so that equal counts are one
    node. ``factors`` says of which count another is a multiple.
    """

    def __init__(self, graph: Graph) -> None:
        self.factors: dict[Node, tuple[Node, int]] = {}
        self._made: dict[tuple[object, ...], Node] = {}
        self._start = next(node for node in graph.nodes if node.op != "placeholder")

    def once(self, before: Node, overload: OpOverload, *args: Any) -> Node:
        key = (overload, str(args))
        if key not in self._made:
            self._made[key] = insert_call(before, overload, *args)
        return self._made[key]

    def stored(self, module: GraphModule, value: torch.Tensor) -> Node:
        """A constant, which stands at the beginning of the graph."""
        key = (value.dtype, tuple(value.shape), str(value.tolist()))
        if key not in self._made:
            self._made[key] = add_tensor(module, self._start, "valid", value, trainable=False)
        return self._made[key]

    def number(self, module: GraphModule, value: float, dtype: torch.dtype) -> Node:
        return self.stored(module, torch.tensor(value, dtype=dtype))


@dataclass(frozen=True)
class Places:
    """What values count in: they are places in a list of at most ``most`` elements, of which ``count`` are valid."""

    most: int
    count: Node


class Call:
    """A call, and the lengths of everything before it; ``made`` is what takes the place of its result. ``places`` are
    what values before it count in, where that is known."""

    def __init__(
        self,
        module: GraphModule,
        node: Node,
        known: MutableMapping[Node, Lengths],
        scalars: Scalars,
        places: Mapping[Node, Places],
    ) -> None:
        self.module, self.node, self.scalars, self.places = module, node, scalars, places
        self.made: list[Node] = []
        self._known = known
        self.args = arguments(node) if node.op == "call_function" else {}

    @property
    def shape(self) -> tuple[int, ...]:
        return spec(self.node).shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return spec(self.args[name]).shape

    def lengths(self, operand: str | Node) -> Lengths:
        node = self.args[operand] if isinstance(operand, str) else operand
        return self._known.get(node, {})

    def dims(self, given: Any, rank: int) -> list[int]:
        """Dimensions of an argument, counted from the front; none stand for all."""
        if given is None or given == []:
            return list(range(rank))
        return [dim % rank for dim in (given if isinstance(given, list | tuple) else [given])]

    def refuse(self, reason: str) -> CompileError:
        return CompileError(
            f"{op_name(self.node)} reads a list whose length depends on the data",
            where=origin(self.node),
            why=reason,
            help="end the model in front of it, or let it work on a list of fixed length, as topk gives one",
        )

    def joined(self, found: Sequence[Lengths]) -> Lengths:
        """The lengths of a result that has those of several values."""
        result: dict[int, Node] = {}
        for lengths in found:
            for dim, count in lengths.items():
                if result.setdefault(dim, count) is not count:
                    raise self.refuse("it combines lists whose lengths are computed apart, element by element")
        return result

    def only(self, *names: str) -> None:
        """Refuse a call that reads open values as other operands than these."""
        allowed = [self.args[name] for name in names]
        for operand in self.node.all_input_nodes:
            if self.lengths(operand) and operand not in allowed:
                raise self.refuse(f"'{operand.name}' has such a length, and must have a fixed one there")

    def valid(self, dim: int, shape: Sequence[int], count: Node) -> Node:
        """Which elements of a value of a shape are valid along a dimension: ``bool``, broadcast along the others."""
        size = shape[dim]
        places = self.scalars.stored(self.module, torch.arange(size))
        mask = self.scalars.once(count.next, aten.lt.Tensor, places, count)
        view = [size if d == dim else 1 for d in range(len(shape))]
        return self.scalars.once(mask.next, aten.reshape.default, mask, view) if len(shape) > 1 else mask

    def fill(self, name: str, dims: Sequence[int], value: float) -> None:
        """Put a number in the place of all that is not valid in an operand, along those of ``dims`` that are open."""
        lengths = self.lengths(name)
        for dim in dims:
            if dim in lengths:
                operand = self.args[name]
                number = self.scalars.number(self.module, value, spec(operand).dtype)
                mask = self.valid(dim, spec(operand).shape, lengths[dim])
                self.args[name] = insert_call(self.node, aten.where.self, mask, operand, number)
                self._known[self.args[name]] = lengths
                self.node.replace_input_with(operand, self.args[name])

    def instead(self, result: Node, reader: Node) -> None:
        """Let all others read ``result``, of which ``reader``, the only new user of the call, is a part."""
        self.node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not reader)
        self.made.append(result)


def lowest(dtype: torch.dtype) -> float:
    """No number of a type is less."""
    if dtype is torch.bool:
        return False
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def highest(dtype: torch.dtype) -> float:
    if dtype is torch.bool:
        return True
    return torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max
