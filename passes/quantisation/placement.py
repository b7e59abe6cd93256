"""Which activations must be quantised, for a set of layers to run in integers.

A layer asks that each activation which it reads is quantised. Between layers, an operator with an integer kernel runs
in integers if all that it reads comes from integers and something that runs in integers reads it in the end: to
quantise an island of float operators buys nothing. One that only moves values hands the quantisation parameters of its
operands on, so that operands which meet there (in a concatenation) share them. Nothing is quantised between a kernel
and what it does as it writes its result, nor are results that only float operators and the outputs read.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", sections 2 and 3; Nagel et al. 2021, "A white paper on neural network quantization", section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import Graph, Node

from lvc.compiler.ir.dialect import Family
from lvc.compiler.ir.graph import calls, family, spec
from lvc.compiler.ir.layers import FLOATING
from lvc.passes.analysis.patterns import left_out
from lvc.passes.quantisation.rules import CURVES, LIMITS, ROLES, Role, activations, is_quantised, refusal, role

_WRITERS = (Role.WEIGHTED, Role.RESCALE)


@dataclass(frozen=True)
class Placement:
    """What runs in integers once ``layers`` do, and which values are quantised for that."""

    graph: Graph
    layers: frozenset[Node]

    @cached_property
    def fused(self) -> frozenset[Node]:
        """The activations that the kernel before them computes as it writes its result."""
        found: set[Node] = set()
        behind_layers = set(self.layers)
        for node in calls(self.graph, *LIMITS, *CURVES):
            before = node.args[0]
            if not isinstance(before, Node) or len(before.users) > 1 or self._roles.get(node) in (None, Role.RESCALE):
                continue
            if before in behind_layers:
                behind_layers.add(node)
                found.add(node)
            elif node.target in LIMITS and (before in found or self._roles.get(before) in _WRITERS):
                found.add(node)
        return frozenset(found)

    @cached_property
    def integer(self) -> frozenset[Node]:
        """The calls that run in integers: the layers, and what stands between them."""
        found = set(self.layers)
        for node in calls(self.graph):
            if node in self._roles and node not in self._led_to_products and self._can_be_integer(node, found):
                found.add(node)
        for node in reversed(list(calls(self.graph))):
            if node in found - self.layers and not any(user in found for user in node.users):
                found.discard(node)
        return frozenset(found)

    @cached_property
    def quantised(self) -> tuple[Node, ...]:
        """The values with quantisation parameters of their own, in graph order."""
        read = {operand for node in self.integer - self.fused for operand in activations(node)}
        return tuple(node for node in self.graph.nodes if node in read and not self._is_quantised_already(node))

    @cached_property
    def groups(self) -> dict[Node, str]:
        """The name of its group for each quantised value that must share its parameters with others."""
        members: dict[Node, set[Node]] = {node: {node} for node in self.quantised}
        for node in self.graph.nodes:
            if self.hands_on(node):
                joined = set().union(*(members.get(operand, set()) for operand in activations(node)))
                members |= dict.fromkeys([node, *joined], joined)
        order = {node: place for place, node in enumerate(self.graph.nodes)}
        shared = {node: members[node] for node in self.quantised if len(members[node]) > 1}
        return {node: min(joined, key=order.__getitem__).name for node, joined in shared.items()}

    def hands_on(self, node: Node) -> bool:
        """Whether a value has the quantisation parameters of the operands that it was made from."""
        return node in self.integer and self._roles.get(node) is Role.PASS

    def readers(self, node: Node) -> list[Node]:
        """Who reads a quantised value as such: all, if it was made in integers, else those who need it so."""
        if node in self.integer:
            return list(node.users)
        return [user for user in node.users if user in self.integer and user not in self.fused]

    @cached_property
    def _led_to_products(self) -> frozenset[Node]:
        """What moves values for none in integers but products of computed matrices: they are quantised behind it, for
        there each factor has a range of its own, and is rounded as it is moved."""
        found = {node for node in self.layers if ROLES[node.target] is Role.PRODUCT}  # type: ignore[index]
        others = {*self.layers, *self._roles} - found
        for node in reversed(list(calls(self.graph))):
            if self._roles.get(node) is Role.PASS and not others & node.users.keys():
                found.add(node)
                others.discard(node)
        return frozenset(found)

    @cached_property
    def _roles(self) -> dict[Node, Role]:
        """The roles of all calls but the layers and what could have been one."""
        found = {node: role(node) for node in calls(self.graph) if family(node) is not Family.CONTRACTION}
        return {node: kind for node, kind in found.items() if kind is not None}

    def _is_quantised_already(self, node: Node) -> bool:
        return is_quantised(node) or self.hands_on(node)

    def _can_be_integer(self, node: Node, found: set[Node]) -> bool:
        operands = [node.args[0]] if node in self.fused else activations(node)
        known = [operand for operand in operands if isinstance(operand, Node) and is_quantised(operand)]
        if known and len(known) < len(operands) and self._roles[node] is Role.PASS:
            return False  # parameters that are known already cannot be shared with those to come
        return all(operand in known or operand in found or _is_float_input(operand) for operand in operands)


def _is_float_input(node: object) -> bool:
    return isinstance(node, Node) and node.op == "placeholder" and spec(node).dtype == torch.float32


def refused_layers(graph: Graph, only: tuple[str, ...], skip: tuple[str, ...]) -> dict[Node, str]:
    """Return the layers that stay in floating point, each with the reason."""
    layers = list(calls(graph, *FLOATING))
    asked = left_out(layers, only, skip)
    return {layer: why for layer in layers if (why := asked.get(layer) or refusal(layer)) is not None}
