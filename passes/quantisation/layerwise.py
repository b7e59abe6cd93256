"""The quantised model and the floating-point one, side by side, layer by layer, on the same calibration data.

What a layer of the quantised model sees are the values that it truly gets, with every change to the layers before made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.errors import CompileError
from lvc.compiler.ir.graph import (
    arguments,
    calls,
    erase_dead,
    origin,
    replace,
    spec,
    store,
    tensor,
)
from lvc.compiler.ir.layers import INTEGER_LAYERS, channel_dim, weight_node
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import HELP, UNCALIBRATED, WHY_NOT
from lvc.compiler.measure.comparison.loss import OutputLoss, compare_all
from lvc.compiler.measure.comparison.verdict import note_errors
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.memory import peak_activation_bytes
from lvc.compiler.running.run import Run
from lvc.compiler.running.sweep import Sweep
from lvc.passes.quantisation.rules import is_quantised, is_weight

_COMPARED = 16


@dataclass
class Layerwise:
    """Both models at the same place; ``twins`` are the nodes of the floating-point one by name."""

    model: Model
    floating: Model
    data: Calibration
    seed: int

    @classmethod
    def open(cls, model: Model, workspace: Workspace, data: str, images: int) -> Layerwise:
        """Begin before the first layer, on as many images as fit into memory."""
        fitting = Calibration.read(model, workspace, data, images).fitting(2 * peak_activation_bytes(model))
        return cls(model, without_fake_quantisation(model), fitting, workspace.seed)

    def restarted(self, images: int) -> Layerwise:
        """Begin anew with a copy of the quantised model, on at most so many images."""
        return Layerwise(self.model.copy(share_tensors=True), self.floating, self.data.first(images), self.seed)

    @cached_property
    def quantised_sweep(self) -> Sweep:
        return Sweep(self.model, self.data.batches)

    @cached_property
    def floating_sweep(self) -> Sweep:
        return Sweep(self.floating, self.data.batches)

    @cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def twins(self) -> dict[str, Node]:
        return {node.name: node for node in self.floating.module.graph.nodes}

    def wanted(self, layer: Node) -> Sequence[torch.Tensor]:
        """Run the floating-point model past a layer; return what it gives."""
        return self.floating_sweep.past(self.twins[layer.name])

    def inputs(self, layer: Node) -> Sequence[torch.Tensor]:
        """Run the quantised model up to a layer; return what it reads."""
        self.quantised_sweep.until(layer)
        return self.quantised_sweep.values(arguments(layer)["input"])

    def found(self, layer: Node) -> Sequence[torch.Tensor]:
        """Run the quantised model past a layer; return what it gives."""
        return self.quantised_sweep.past(layer)

    def shift(self, layer: Node, by: torch.Tensor) -> None:
        """Add a number for each channel to what a layer gives, past which the quantised model has been run."""
        column = by.reshape(-1, *[1] * (len(spec(layer).shape) - 1 - channel_dim(layer)))
        self.quantised_sweep.change(layer, lambda value: value.add_(column.to(value.dtype)))

    def losses(self) -> list[OutputLoss]:
        """Return how far each output is from the floating-point model's, over the first images."""
        return compare_all(self.model, self.few_wanted, self._run_few(self.model))

    @cached_property
    def few(self) -> Calibration:
        return self.data.first(max(1, _COMPARED // self.data.size) * self.data.size)

    @cached_property
    def few_wanted(self) -> Sequence[tuple[torch.Tensor, ...]]:
        return self._run_few(self.floating)

    def _run_few(self, model: Model) -> list[tuple[torch.Tensor, ...]]:
        run = Run(model, frozen=True)
        return [outputs for batch in self.few.batches for outputs in run.each(batch)]

    def note(self, outcome: Outcome, before: Sequence[OutputLoss]) -> None:
        """Say how far each output is from the floating-point model's now, and was before."""
        note_errors(self.losses(), self.few.images, outcome, before)


def find(model: Model, name: str) -> Node:
    """Return the node of that name, which layers have in every copy of a model."""
    nodes: Iterable[Node] = model.module.graph.nodes
    return next(node for node in nodes if node.name == name)


def quantised_layers(model: Model, outcome: Outcome) -> list[Node]:
    """Return the layers with stored weights whose inputs and weights are both quantised, in order.

    `CompileError` if it is still to be calibrated.
    """
    graph = model.module.graph
    for place in calls(graph, UNCALIBRATED):
        raise CompileError(f"'{place.name}' is not calibrated", where=origin(place), why=WHY_NOT, help=HELP)
    found = []
    for layer in calls(graph, *INTEGER_LAYERS):
        weight, bias = arguments(layer)["weight"], arguments(layer)["bias"]
        if not is_quantised(weight):
            continue
        if not is_weight(weight) or len(weight.users) > 1 or len(weight.all_input_nodes[0].users) > 1:
            outcome.skip(layer, "its weight is computed in the graph, or shared")
        elif bias is not None and bias.op != "get_attr":
            outcome.skip(layer, "its bias is computed in the graph")
        else:
            found.append(layer)
    if not found:
        outcome.notes.append("no layer is quantised; put insert-fake-quant and calibrate before this pass")
    return found


def stored_weight(model: Model, layer: Node) -> torch.Tensor:
    weight = tensor(model.module, weight_node(layer))
    assert weight is not None
    return weight.detach()


def stored_bias(model: Model, layer: Node) -> torch.Tensor:
    """Return a layer's bias, zeros if it has none."""
    weight = stored_weight(model, layer)
    bias = tensor(model.module, arguments(layer)["bias"])
    return torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias.detach()


def stored_scale(model: Model, layer: Node) -> torch.Tensor:
    """Return the scales of a layer's weight, nothing if they are no stored tensor."""
    scale = tensor(model.module, arguments(arguments(layer)["weight"])["scale"])
    return torch.empty(0) if scale is None else scale.detach()


def set_weight(module: GraphModule, layer: Node, value: torch.Tensor) -> None:
    node = weight_node(layer)
    store(module, str(node.target), value.to(spec(node).dtype))


def set_scale(module: GraphModule, layer: Node, value: torch.Tensor) -> None:
    """Store the scales of a weight that has one for each output channel."""
    scale = arguments(arguments(layer)["weight"])["scale"]
    store(module, str(scale.target), value.reshape(spec(scale).shape), trainable=False)


def without_fake_quantisation(model: Model) -> Model:
    """Return a copy without fake quantisation: the floating-point model with the weights as they are now."""
    twin = model.copy()
    for node in calls(twin.module.graph):
        if is_quantised(node):
            replace(node, node.all_input_nodes[0])
    erase_dead(twin.module)
    twin.module.recompile()
    return twin
