"""One call of a graph, with the places of the batch in what it reads: what the rules look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch.fx import Node

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.graph import arguments, spec


class Refusal(Exception):
    """Why a call cannot be made for another number of images."""


@dataclass(frozen=True)
class Step:
    """A call for any batch: where its result has the images, None if it is one for all of them.

    ``literals`` are arguments by name in which `Times` stands for sizes; ``spread`` has the operands that are one value
    for all images and are needed for each.
    """

    axis: BatchAxis | None
    literals: Mapping[str, Any] = field(default_factory=dict)
    spread: Mapping[Node, BatchAxis] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A call of which some operands hold images; ``batch`` is how many there are in the graph as it stands."""

    node: Node
    axes: Mapping[Node, BatchAxis | None]
    batch: int

    @cached_property
    def args(self) -> dict[str, Any]:
        return arguments(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        return spec(self.node).shape

    def axis(self, name: str) -> BatchAxis:
        """Where the images are in the operand of that name; `Refusal` if it is not that one which has them."""
        found = self.axes[self.args[name]]
        if found is None:
            raise Refusal(f"its {name} is one for all images, and another operand is not")
        return found

    def rank(self, name: str = "") -> int:
        return len(spec(self.args[name]).shape if name else self.shape)

    def only(self, name: str) -> BatchAxis:
        """The same, where no other operand may have images."""
        for other in self.node.all_input_nodes:
            if other is not self.args[name] and self.axes[other] is not None:
                raise Refusal(f"'{other.name}' is computed from the images, and each would need one of its own")
        return self.axis(name)

    def dims(self, given: Any, rank: int) -> list[int]:
        """Dimensions of an argument, counted from the front; none stand for all."""
        if given is None or given == []:
            return list(range(rank))
        return [dim % rank for dim in (given if isinstance(given, list | tuple) else [given])]
