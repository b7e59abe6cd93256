"""Places for fake quantisation put into a graph: `lvc::uncalibrated` calls, which change nothing until calibrated."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Graph, Node
from torch.fx.node import Argument

from lvc.compiler.ir.graph import arguments, origin, spec
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.passes.quantisation.placement import Placement
from lvc.passes.quantisation.rules import ROLES, Role, is_quantised


@dataclass(frozen=True, kw_only=True)
class Schemes:
    """How weights and activations are quantised; the options of `insert-fake-quant` say what each means."""

    weight_bits: int = 8
    activation_bits: int = 8
    weight_symmetric: bool = True
    activation_symmetric: bool = False
    per_channel: bool = True
    scale: str = "linear"
    weight_steps: str = "linear"
    group: int = 0

    def arguments(self, value: Node, readers: list[Node], group: str) -> tuple[Argument, ...]:
        """Return what `lvc::uncalibrated` is told of how to quantise a value."""
        if value.op != "get_attr":
            return (self.activation_bits, None, self.activation_symmetric, self.scale, group)
        has_channels = all(ROLES[reader.target] is Role.WEIGHTED for reader in readers)  # type: ignore[index]
        if not has_channels:
            return (self.weight_bits, None, self.weight_symmetric, self.scale, group)
        axis = 0 if self.per_channel else None
        asked = (self.weight_bits, axis, self.weight_symmetric, self.weight_steps, group)
        return (*asked, self.group) if self.group and spec(value).shape[1] % self.group == 0 else asked


def insert_places(graph: Graph, placement: Placement, schemes: Schemes) -> list[Node]:
    """Quantise what a placement asks for, and the weights of its layers; return the places."""
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
