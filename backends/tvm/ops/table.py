"""The table of operators: how a call becomes an array in a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch._ops import OpOverload
from torch.fx import Node

from lvc.backends.tvm.layout import PLAIN, Layout
from lvc.backends.tvm.operands import stored
from lvc.backends.tvm.scope import Array, Expr, Index, Scope, dtype_text
from lvc.compiler.ir.graph import arguments, spec


@dataclass(frozen=True)
class Call:
    """One operator call inside a kernel. ``operands`` are its arguments by the schema's names, tensors as arrays.

    ``layout`` is how the result will lie in memory if the call makes stages of its own, and the layout in which stages
    do best; ``layouts`` are those of the values that the kernel reads.
    """

    node: Node
    operands: dict[str, Any]
    scope: Scope
    layout: Layout
    layouts: Mapping[Node, Layout]

    def __getitem__(self, name: str) -> Any:
        return self.operands[name]

    @property
    def shape(self) -> tuple[int, ...]:
        return spec(self.node).shape

    @property
    def dtype(self) -> str:
        return dtype_text(spec(self.node).dtype)

    def in_memory(self, name: str) -> Node:
        """The value in memory behind an operand."""
        return stored(arguments(self.node)[name])

    def layout_of(self, name: str) -> Layout | None:
        """The layout in which an operand lies; None of a stored tensor, which has none yet."""
        return self.layouts.get(self.in_memory(name))

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Any:
        """The TE tensor of an operand, in a shape in memory of the kernel's own if one is given."""
        source = self.in_memory(name)
        return self.scope.tensor_of(source, spec(source), self.layouts.get(source, PLAIN), shape)

    def result(self, read: Callable[[Index], Expr]) -> Array:
        """An array of this call's shape and type."""
        return Array(self.shape, self.dtype, read)


Lowering = Callable[[Call], Array]
LOWERINGS: dict[OpOverload, Lowering] = {}
F = TypeVar("F", bound=Lowering)


def lowers(*overloads: OpOverload) -> Callable[[F], F]:
    """Enter a function into the table."""

    def enter(function: F) -> F:
        for overload in overloads:
            assert overload not in LOWERINGS, f"{overload} has two lowerings"
            LOWERINGS[overload] = function
        return function

    return enter


def lowering_of(node: Node) -> Lowering:
    """The entry of a call's operator."""
    assert isinstance(node.target, OpOverload)
    return LOWERINGS[node.target]
