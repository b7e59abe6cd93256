"""Places for fake quantisation put into a graph: `lvc::uncalibrated` calls, which change nothing until calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch.fx import Graph, Node
from torch.fx.node import Argument

from lvc.compiler.ir.graph import arguments, origin, spec
from lvc.compiler.ir.layers import FLOATING
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.passes.quantisation.placement import Placement
from lvc.passes.quantisation.rules import ROLES, Role, is_quantised


@dataclass(frozen=True, kw_only=True)
class Schemes:
    """How weights and activations are quantised; the options of `insert-fake-quant` say what each means.

    ``outer`` are the readers whose operands have ``outer_bits``, if any have bits of their own.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    weight_symmetric: bool = True
    activation_symmetric: bool = False
    per_channel: bool = True
    scale: str = "linear"
    weight_steps: str = "linear"
    group: int = 0
    outer_bits: int = 0
    outer: frozenset[Node] = frozenset()

    def arguments(self, value: Node, readers: list[Node], group: str) -> tuple[Argument, ...]:
        """Return what `lvc::uncalibrated` is told of how to quantise a value."""
        own = self.outer_bits if not group and self.outer.issuperset(readers) else 0
        if value.op != "get_attr":
            return (own or self.activation_bits, None, self.activation_symmetric, self.scale, group)
        has_channels = all(ROLES[reader.target] is Role.WEIGHTED for reader in readers)  # type: ignore[index]
        if not has_channels:
            return (own or self.weight_bits, None, self.weight_symmetric, self.scale, group)
        axis = 0 if self.per_channel else None
        asked = (own or self.weight_bits, axis, self.weight_symmetric, self.weight_steps, group)
        return (*asked, self.group) if self.group and spec(value).shape[1] % self.group == 0 else asked


def _outer(graph: Graph, placement: Placement) -> frozenset[Node]:
    """The layers that no other layer feeds, those that feed no other, and what only moves values for them."""
    behind: set[Node] = set()
    for node in graph.nodes:
        if any(operand in behind or operand.target in FLOATING for operand in node.all_input_nodes):
            behind.add(node)
    before: set[Node] = set()
    outer: set[Node] = set()
    for node in reversed(graph.nodes):
        if any(user in before or user.target in FLOATING for user in node.users):
            before.add(node)
        is_layer = node.target in FLOATING and not (node in behind and node in before)
        if is_layer or (placement.hands_on(node) and outer.issuperset(node.users)):
            outer.add(node)
    return frozenset(outer)


def insert_places(graph: Graph, placement: Placement, schemes: Schemes) -> list[Node]:
    """Quantise what a placement asks for, and the weights of its layers; return the places."""
    if schemes.outer_bits:
        schemes = replace(schemes, outer=_outer(graph, placement))
    values, groups = placement.quantised, placement.groups
    readers = {value: placement.readers(value) for value in values}
    for layer in placement.layers:
        weight = arguments(layer)["weight"] if ROLES[layer.target] is Role.WEIGHTED else None  # type: ignore[index]
        if weight is not None and not is_quantised(weight):
            readers.setdefault(weight, []).append(layer)
    return [
        _insert(schemes, value, readers[value], groups.get(value, ""))
        for value in [node for node in graph.nodes if node in readers]
    ]


def _insert(schemes: Schemes, value: Node, readers: list[Node], group: str) -> Node:
    """Let some readers of a value read it through a place to quantise it: one that stands already, or a new one."""
    asked = schemes.arguments(value, readers, group)
    place = next((user for user in value.users if user.target is UNCALIBRATED and user.args[1:] == asked), None)
    if place is None:
        with value.graph.inserting_before(_first_call_after(value)):
            place = value.graph.create_node(
                "call_function", UNCALIBRATED, (value, *asked), name=f"{value.name}_quantised"
            )
        place.meta.update(spec=spec(value), origin=origin(value))
    for reader in readers:
        reader.replace_input_with(value, place)
    return place


def _first_call_after(value: Node) -> Node:
    """Return the first node after a value that is no input, for the inputs stand together."""
    after = value.next
    while after.op == "placeholder":
        after = after.next
    return after
