"""What a model gives when one stored tensor is another: of a run that is known, only what depends on it runs again."""

from __future__ import annotations

from collections import ChainMap

import torch
from torch.fx import Node

from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.graph import tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.running.batches import Parts
from lvc.compiler.running.compute import Values, compute


class Rerun:
    """A model whose runs can be repeated in part. Outputs come in parts of the signature's size."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._parts = Parts(model)
        self._order = [node for node in model.module.graph.nodes if node.op != "output"]
        self._input = next(node for node in self._order if node.op == "placeholder")
        self._readers: dict[Node, list[Node]] = {}

    def run(self, batch: torch.Tensor, instead: Values | None = None) -> dict[Node, torch.Tensor]:
        """Run all of the model, perhaps with other tensors instead of stored ones; return the values of all nodes."""
        values, calls = dict(instead or {}), self._parts.calls(len(batch))
        with torch.inference_mode():
            for node in self._order:
                if node not in values:
                    stored = tensor(self._model.module, node)
                    values[node] = stored.detach() if stored is not None else self._value(node, batch, values, calls)
        return values

    def outputs(self, values: Values) -> list[tuple[torch.Tensor, ...]]:
        """Return the outputs of a run, part by part."""
        calls = self._calls(values)
        parts = [self._parts.of(node, values[node], calls) for node in self._model.output_nodes]
        return list(zip(*parts, strict=True))

    def again(self, values: Values, node: Node, instead: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """Return the outputs of a run as they are with another value for one node."""
        found, calls = ChainMap({node: instead}, dict(values)), self._calls(values)
        with torch.inference_mode():
            for reader in self._after(node):
                found[reader] = compute(reader, found, calls)
        return self.outputs(found)

    def _calls(self, values: Values) -> Calls | None:
        return self._parts.calls(len(values[self._input]))

    def _value(self, node: Node, batch: torch.Tensor, values: Values, calls: Calls | None) -> torch.Tensor:
        return batch if node.op == "placeholder" else compute(node, values, calls)

    def _after(self, node: Node) -> list[Node]:
        """Return the calls that depend on a node, in order."""
        if node not in self._readers:
            reached = {node}
            for reader in self._order:
                if not reached.isdisjoint(reader.all_input_nodes):
                    reached.add(reader)
            self._readers[node] = [reader for reader in self._order if reader in reached and reader is not node]
        return self._readers[node]
