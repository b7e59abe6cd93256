"""One way to run a model over data: batch after batch, with values looked at, or computed otherwise, on the way.

A batch may hold more images than the signature; who looks at a value gets it in parts of the signature's size, so that
what is learnt does not depend on how many images ran at once. Values are freed as soon as nothing reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.fx import Node

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.graph import tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.running.batches import Parts
from lvc.compiler.running.compute import Values, compute
from lvc.compiler.running.constants import constant_values

Look = Callable[[Sequence[torch.Tensor]], None]
"""Is shown a value, in parts of the signature's size."""

Compute = Callable[[Node, Values, Calls | None], torch.Tensor]
"""Returns the value of a node in place of its call."""


class Run:
    """Runs of one model. Stored tensors are read as they are at each run; ``frozen`` has them as they are now.

    ``looks`` are shown the values of their nodes, and ``instead`` has nodes that are computed otherwise. Without
    ``differentiable`` no gradient can be taken; with it derivatives reach what ``instead`` makes, and no stored tensor.
    """

    def __init__(
        self,
        model: Model,
        looks: Mapping[Node, Look] | None = None,
        instead: Mapping[Node, Compute] | None = None,
        *,
        differentiable: bool = False,
        frozen: bool = False,
    ) -> None:
        self.model = model
        self.calls: Calls | None = None
        self._order = [node for node in model.module.graph.nodes if node.op != "output"]
        self._last = {operand: node for node in model.module.graph.nodes for operand in node.all_input_nodes}
        self._looks = looks or {}
        self._instead = instead or {}
        self._differentiable = differentiable
        self._fixed = constant_values(model) if frozen else {}
        self._parts = Parts(model)

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one batch; return the outputs."""
        self.calls = self._parts.calls(inputs[0].shape[0] if inputs and inputs[0].ndim else self._parts.size)
        given, values = iter(inputs), dict(self._fixed)
        with contextlib.nullcontext() if self._differentiable else torch.inference_mode():
            for node in self._order:
                if node not in self._fixed:
                    values[node] = next(given) if node.op == "placeholder" else self._value(node, values)
                if node in self._looks:
                    self._looks[node](self.parts(node, values[node]))
                for operand in (node, *node.all_input_nodes):
                    if self._last.get(operand, node) is node:
                        values.pop(operand, None)
        return tuple(values[node] for node in self.model.output_nodes)

    def each(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """Run one batch; return the outputs of each part of the signature's size."""
        outputs = self(batch)
        parts = [self.parts(node, out) for node, out in zip(self.model.output_nodes, outputs, strict=True)]
        return list(zip(*parts, strict=True))

    def parts(self, node: Node, value: torch.Tensor) -> list[torch.Tensor]:
        """Return a value of the last run in parts of the signature's size."""
        return self._parts.of(node, value, self.calls)

    def axis(self, node: Node) -> BatchAxis | None:
        """Where the images of the last run are in a value; None if it is for all, or the graph was run as it is."""
        return self.calls.batching.axis(node) if self.calls else None

    def _value(self, node: Node, values: Values) -> torch.Tensor:
        if node in self._instead:
            return self._instead[node](node, values, self.calls)
        stored = tensor(self.model.module, node)
        if stored is not None:
            return stored.detach()
        return compute(node, values, self.calls, differentiable=self._differentiable)
