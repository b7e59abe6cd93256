"""Which values of a graph are worth storing in a shorter floating-point type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import Family, aten
from lvc.compiler.ir.graph import arguments, calls, family, is_call, spec
from lvc.compiler.ir.groups import groups
from lvc.compiler.ir.layers import factors
from lvc.compiler.ir.operators import heatmaps, ordering, regions

# operators whose results change most with small changes of large operands
_SENSITIVE = (
    aten.softmax.int,
    aten.log_softmax.int,
    aten.argmax.default,
    aten.argmin.default,
    aten.cumsum.default,
    *ordering.OPERATORS,
    *heatmaps.OPERATORS,
)


@dataclass(frozen=True)
class Places:
    """Where images are sampled: values that would be wrong by pixels if they were rounded, in images of a few hundred.

    ``moved`` are those that the sampler reads as they are or rearranged, a contraction among them is a map of places;
    ``values`` are these, what they are computed from element by element, and the operands of such maps.
    """

    moved: frozenset[Node]
    values: frozenset[Node]

    @classmethod
    def of(cls, graph: Graph) -> Places:
        moved, values = set[Node](), set[Node]()
        for node in reversed(list(graph.nodes)):
            movements = [user for user in node.users if family(user) is Family.MOVEMENT]
            if any(_samples_at(user, node) for user in node.users) or not moved.isdisjoint(movements):
                moved.add(node)
            maps = [u for u in node.users if family(u) is Family.ELEMENTWISE or u in moved]
            if node in moved or not values.isdisjoint((*movements, *maps)):
                values.add(node)
        return cls(frozenset(moved), frozenset(values))


def _samples_at(user: Node, places: Node) -> bool:
    if is_call(user, regions.roi_align):
        return arguments(user)["rois"] is places
    return is_call(user, aten.grid_sampler_2d.default) and arguments(user)["grid"] is places


@dataclass(frozen=True)
class Narrowing:
    """What to store short, given the contractions whose factors shall be.

    Kernels are the groups that `fuse-operators` marked and every other call alone; within one, nothing is stored.
    Between two contractions, values are short: whatever one kernel hands to another. Outputs of the model are not, nor
    are the operands of softmax and its like, nor the places at which images are sampled, nor what comes before the
    first contraction or after the last. Nor are those in ``kept``.
    """

    graph: Graph
    contractions: tuple[Node, ...]
    kept: frozenset[Node] = frozenset()

    @cached_property
    def stored(self) -> tuple[Node, ...]:
        """The values that kernels hand on in the shorter type and in no other, in order."""
        return tuple(node for node in calls(self.graph) if self._is_stored(node))

    @cached_property
    def copied(self) -> tuple[Node, ...]:
        """The values that contractions read and that must stay as they are for other readers: inputs and outputs."""
        return tuple(node for node in self.graph.nodes if node in self._factors and self._is_copied(node))

    def _is_copied(self, node: Node) -> bool:
        return node.op in ("placeholder", "call_function") and not self._is_stored(node) and _is_float32(node)

    def _is_stored(self, node: Node) -> bool:
        if node.op != "call_function" or not _is_float32(node) or node in self._inside:
            return False
        if self.graph.output_node() in node.users:
            return False
        if node in self._places.values or node in self.kept:
            return False
        if node in self._factors:
            return True
        if any(is_call(user, *_SENSITIVE) for user in node.users):
            return False
        return node in self._after and node in self._before

    @cached_property
    def _places(self) -> Places:
        return Places.of(self.graph)

    @cached_property
    def _factors(self) -> set[Node]:
        return {factor for contraction in self.contractions for factor in factors(contraction)}

    @cached_property
    def _inside(self) -> set[Node]:
        return {member for group in groups(self.graph) for member in group.members[:-1]}

    @cached_property
    def _after(self) -> set[Node]:
        """Contractions and what depends on them."""
        found = set(self.contractions)
        for node in calls(self.graph):
            if any(operand in found for operand in node.all_input_nodes):
                found.add(node)
        return found

    @cached_property
    def _before(self) -> set[Node]:
        """What contractions depend on."""
        contractions, found = set(self.contractions), set[Node]()
        for node in reversed(list(self.graph.nodes)):
            if any(user in contractions or user in found for user in node.users):
                found.add(node)
        return found


def can_move(node: Node) -> bool:
    """Whether a call moves elements of a shorter type as it moves others, putting nothing but zeros between them."""
    if family(node) is not Family.MOVEMENT:
        return False
    if is_call(node, aten.constant_pad_nd.default, aten.pad.default):
        return not arguments(node).get("value")
    return True


def _is_float32(node: Node) -> bool:
    return node.op != "output" and spec(node).dtype is torch.float32
