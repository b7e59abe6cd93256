"""The table of operators: how a call becomes an array in a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch._ops import OpOverload
from torch.fx import Node

from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.scope import Array, Expr, Index, Scope, dtype_text
from lvc.compiler.ir.graph import spec


@dataclass(frozen=True)
class Call:
    """One operator call inside a kernel. ``operands`` are its arguments by the schema's names, tensors as arrays.

    ``layout`` is how the result will lie in memory if the call makes stages of its own, and the layout in which stages
    do best.
    """

    node: Node
    operands: dict[str, Any]
    scope: Scope
    layout: Layout
    vector: Vector

    def __getitem__(self, name: str) -> Any:
        return self.operands[name]

    @property
    def shape(self) -> tuple[int, ...]:
        return spec(self.node).shape

    @property
    def dtype(self) -> str:
        return dtype_text(spec(self.node).dtype)

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
