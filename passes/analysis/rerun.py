"""What a model gives when one stored tensor is another: of a run that is known, only what depends on it runs again."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import tensor
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.quick import compute

Values = Mapping[Node, torch.Tensor]


class Rerun:
    """A model whose runs can be repeated in part."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._order = [node for node in model.module.graph.nodes if node.op != "output"]
        self._readers: dict[Node, list[Node]] = {}

    def run(self, batch: torch.Tensor, instead: Values | None = None) -> dict[Node, torch.Tensor]:
        """Run all of the model, perhaps with other tensors instead of stored ones; return the values of all nodes."""
        values = dict(instead or {})
        with torch.inference_mode():
            for node in self._order:
                if node not in values:
                    stored = tensor(self._model.module, node)
                    values[node] = stored if stored is not None else self._value(node, batch, values)
        return values

    def outputs(self, values: Values) -> list[torch.Tensor]:
        """Return the outputs of a run."""
        return [values[node] for node in self._model.output_nodes]

    def again(self, values: Values, node: Node, instead: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of a run as they are with another value for one node."""
        found = ChainMap({node: instead}, dict(values))
        with torch.inference_mode():
            for reader in self._after(node):
                found[reader] = compute(reader, found)
        return self.outputs(found)

    def _value(self, node: Node, batch: torch.Tensor, values: Values) -> torch.Tensor:
        return batch if node.op == "placeholder" else compute(node, values)

    def _after(self, node: Node) -> list[Node]:
        """Return the calls that depend on a node, in order."""
        if node not in self._readers:
            reached = {node}
            for reader in self._order:
                if not reached.isdisjoint(reader.all_input_nodes):
                    reached.add(reader)
            self._readers[node] = [reader for reader in self._order if reader in reached - {node}]
        return self._readers[node]
