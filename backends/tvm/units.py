"""Which nodes make one kernel: the groups that passes marked, chains of movement, and every other node alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node

from lvc.backends.tvm.device import Group
from lvc.backends.tvm.operands import is_inlined, stored
from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import family, is_call, spec

aten = torch.ops.aten

_ALIASES = (aten.reshape.default, aten.dropout.default)
_READS_ONCE = (aten.layer_norm.default,)


@dataclass(frozen=True)
class Unit:
    """Nodes that become one kernel, in order; the last one's value is the kernel's output. They are a ``group`` where
    the target has a kernel for just these."""

    nodes: tuple[Node, ...]
    group: Group | None = None

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    @property
    def anchor(self) -> Node:
        """The node that decides about the layout and the schedule."""
        work = [node for node in self.nodes if not _is_map(node)] or self.nodes
        return next((node for node in work if family(node) is not Family.ELEMENTWISE), work[0])

    @property
    def name(self) -> str:
        return self.anchor.name

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The values that the kernel reads, stored tensors left out."""
        found = dict.fromkeys(stored(operand) for node in self.nodes for operand in node.all_input_nodes)
        return tuple(node for node in found if node not in self.nodes and node.op != "get_attr")

    @property
    def is_movement(self) -> bool:
        return all(map(_is_map, self.nodes))

    @property
    def is_alias(self) -> bool:
        """Whether the output is the one input's elements, in the same row-major order."""
        return all(is_call(node, *_ALIASES) or _keeps_type(node) for node in self.nodes)


def _keeps_type(node: Node) -> bool:
    return is_call(node, aten.to.dtype) and spec(node) == spec(node.all_input_nodes[0])


def units(graph: Graph, groups: Iterable[Group] = ()) -> list[Unit]:
    """Split the calls of a graph into units, each after those that it reads, of which some are ``groups`` of a
    target."""
    whole = {group.nodes[-1]: group for group in groups}
    clusters: dict[Node, list[Node]] = {}
    for members in (*_marked_groups(graph), *(list(group.nodes) for group in whole.values())):
        for node in members:
            clusters[node] = members
    for node in graph.nodes:
        if node.op != "call_function" or node in clusters or is_inlined(node):
            continue
        clusters[node] = [node]
        before = node.all_input_nodes[0] if _is_map(node) else None
        if before in clusters and all(map(_is_map, clusters[before])) and list(before.users) == [node]:
            clusters[node] = clusters[before]
            clusters[node].append(node)
    last = {id(cluster): cluster[-1] for cluster in clusters.values()}
    return _merge_movements(
        [
            Unit(tuple(clusters[node]), whole.get(node))
            for node in graph.nodes
            if node in clusters and last[id(clusters[node])] is node
        ]
    )


def _merge_movements(parts: Sequence[Unit]) -> list[Unit]:
    """Let the one reader of a movement take the elements from where they were, if it can read from anywhere."""
    movements = {unit.output: unit for unit in parts if unit.is_movement and not unit.is_alias}
    merged: set[Node] = set()
    result = []
    for unit in parts:
        nodes = unit.nodes
        if _can_read_anywhere(unit):
            taken = [node for node in unit.inputs if node in movements and set(node.users) <= set(unit.nodes)]
            nodes = (*(node for output in taken for node in movements[output].nodes), *nodes)
            merged.update(taken)
        result.append(replace(unit, nodes=nodes))
    return [unit for unit in result if unit.output not in merged]


def _can_read_anywhere(unit: Unit) -> bool:
    """Whether a kernel has the general schedule and reads its operands about once."""
    return unit.anchor.target in _READS_ONCE or all(family(node) is Family.ELEMENTWISE for node in unit.nodes)


def _is_map(node: Node) -> bool:
    """Whether a node moves the elements of a single operand."""
    if is_call(node, *_ALIASES):
        return True
    if family(node) is not Family.MOVEMENT or is_call(node, aten.cat.default):
        return False
    return len(node.all_input_nodes) == 1


def _marked_groups(graph: Graph) -> Iterator[list[Node]]:
    """The groups that passes marked and that can be one kernel."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "call_function" and "group" in node.meta:
            groups.setdefault(str(node.meta["group"]), []).append(node)
    for members in groups.values():
        if len(members) > 1 and _is_one_kernel(members):
            yield members


def _is_one_kernel(members: Sequence[Node]) -> bool:
    """An anchor and elementwise nodes of its shape, of which only the last is read outside."""
    inside = set(members)
    first, *rest = members
    if any(family(node) is not Family.ELEMENTWISE for node in rest) or any(map(is_inlined, members)):
        return False
    if any(set(node.users) - inside for node in members[:-1]):
        return False
    if any(spec(node).shape != spec(members[-1]).shape for node in members):
        return False
    # nothing may stand between two members that depends on the first and that the last one depends on
    order = {node: place for place, node in enumerate(first.graph.nodes)}
    outside = [operand for node in rest for operand in node.all_input_nodes if operand not in inside]
    return not any(_reaches(operand, inside, order[first], order) for operand in outside)


def _reaches(node: Node, members: set[Node], start: int, order: dict[Node, int]) -> bool:
    """Whether a value depends on a member of a group that begins at ``start``."""
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current in members:
            return True
        if current in seen or order[current] < start:
            continue
        seen.add(current)
        pending.extend(current.all_input_nodes)
    return False
