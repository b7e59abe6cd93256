"""Many batches through a graph together, one node at a time, so that a layer can be changed once all have reached it.

What is estimated at a layer then rests on the values that the layer truly gets, with every change before it made, and
one forward run over the data serves all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.model import Model
from lvc.compiler.running.batches import Parts
from lvc.compiler.running.compute import compute
from lvc.compiler.running.constants import constant_value, constants


class Sweep:
    """A run of a model on several batches that stops where it is told to. Values that nothing reads again are freed.

    Batches may hold more images than the signature; values come in parts of its size. What depends on stored tensors
    alone is computed when it is read, as they are then, and is the same in every part.
    """

    def __init__(self, model: Model, batches: Sequence[torch.Tensor]) -> None:
        self._module = model.module
        self._order = [node for node in model.module.graph.nodes if node.op != "output"]
        self._last = {operand: node for node in model.module.graph.nodes for operand in node.all_input_nodes}
        self._constants = constants(model.module.graph)
        self._batches = batches
        self._parts = Parts(model)
        self._calls = [self._parts.calls(len(batch)) for batch in batches]
        self._values: dict[Node, list[torch.Tensor]] = {}
        self._at = 0

    def until(self, node: Node) -> None:
        """Run everything before a node."""
        with torch.inference_mode():
            while self._order[self._at] is not node:
                self._run(self._order[self._at])
                self._at += 1

    def past(self, node: Node) -> list[torch.Tensor]:
        """Run everything up to a node and the node itself; return its values, in parts."""
        self.until(node)
        with torch.inference_mode():
            self._run(node)
        self._at += 1
        return self.values(node)

    def values(self, node: Node) -> list[torch.Tensor]:
        """Return the values of a node that has been run and is read at this place or later, in parts."""
        if self._is_constant(node):
            parts = sum(len(batch) // self._parts.size for batch in self._batches)
            return [constant_value(self._module, node)] * parts
        pairs = zip(self._values[node], self._calls, strict=True)
        return [part for value, calls in pairs for part in self._parts.of(node, value, calls)]

    def change(self, node: Node, change: Callable[[torch.Tensor], object]) -> None:
        """Change the values of a node that has been run, batch by batch, in place; those of a constant come from what
        is stored."""
        if self._is_constant(node):
            return
        with torch.inference_mode():
            for value in self._values[node]:
                change(value)

    def _run(self, node: Node) -> None:
        if node.op == "placeholder":
            self._values[node] = list(self._batches)
        elif node.op == "call_function" and node not in self._constants:
            operands = node.all_input_nodes
            fixed = {
                operand: constant_value(self._module, operand) for operand in operands if self._is_constant(operand)
            }
            self._values[node] = [
                compute(
                    node,
                    fixed | {operand: self._values[operand][batch] for operand in operands if operand not in fixed},
                    calls,
                )
                for batch, calls in enumerate(self._calls)
            ]
            for operand in operands:
                if self._last.get(operand) is node:
                    self._values.pop(operand, None)

    def _is_constant(self, node: Node) -> bool:
        return node.op == "get_attr" or node in self._constants  # a tensor may be stored after this began
