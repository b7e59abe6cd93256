"""All places where a model is rounded, as its training form has them.

Scales are learned, or follow a moving average of those that fit the batches best, or stay. In each case rounding is
that of `straight_through`, which is many times faster than ATen's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import Graph, GraphModule, Node

from lvc.compiler.data.batches import fed_input
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, free_name, is_call, set_argument, spec, tensor
from lvc.compiler.ir.layers import INTEGER_LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.passes.quantisation.bias_overflow import prevent_bias_overflow
from lvc.passes.quantisation.bias_steps import round_biases, stepped_biases, whole_steps
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.quantisation.sharing import shared_parameters
from lvc.passes.training.fake_quantisation.quantisers import Codebook, Quantiser, Steps

Scales = Literal["learn", "average", "keep"]

_FAKE = (
    aten.fake_quantize_per_tensor_affine.default,
    aten.fake_quantize_per_channel_affine.default,
    FAKE_QUANTIZE_CODEBOOK,
)


class Place(torch.nn.Module):
    """One place: a quantiser, which others may have too, and how many numbers share a scale here."""

    def __init__(self, quantiser: Quantiser, numbers: float) -> None:
        super().__init__()
        self.quantiser, self.numbers = quantiser, numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantiser.round(x, self.numbers)


class SteppedBias(torch.nn.Module):
    """A bias in whole steps of the sums, as integers have it; the gradient passes straight through."""

    def __init__(self, source: Quantiser, weight: Quantiser) -> None:
        super().__init__()
        self.source, self.weight = source, weight

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        rounded = whole_steps(bias.detach(), self.source.step().detach(), self.weight.step().detach())
        return rounded + (bias - bias.detach())


class Averaging(torch.nn.Module):
    """A place where the scale follows what it rounds, in all of the ``ranks``."""

    def __init__(self, place: Place, places: Places, ranks: Ranks) -> None:
        super().__init__()
        self.place, self._places, self._ranks = place, [places], ranks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.place(x)
        if not self._places[0].are_frozen:
            self.place.quantiser.average(self._ranks.gather(x.detach()))
        return y


@dataclass
class Places:
    """The places of a model by the names of their nodes, and the biases that are rounded by the names of their layers.

    ``frozen_at`` is the share of all steps after which scales stay as they are.
    """

    places: dict[str, Place]
    biases: dict[str, SteppedBias]
    scales: Scales
    frozen_at: float
    are_frozen: bool = False

    @classmethod
    def of(cls, model: Model, scales: Scales, frozen_at: float) -> Places:
        """Find them; parameters that the graph computes stay what they are."""
        graph, images = model.module.graph, fed_input(model.inputs).spec.shape[0]
        shared = shared_parameters(graph)
        quantisers: dict[Node, Quantiser] = {}
        places = {}
        for node in calls(graph, *_FAKE):
            if _are_computed(model.module, node):
                continue
            quantiser = quantisers.setdefault(shared.get(node, node), _quantiser(model.module, node))
            stored = node.all_input_nodes[0].op == "get_attr"
            numbers = spec(node).elements / len(quantiser.scale) / (1 if stored else images)
            places[node.name] = Place(quantiser, numbers)
        if scales != "learn":
            for quantiser in quantisers.values():
                quantiser.requires_grad_(False)
        return cls(places, _biases(graph, places), scales, frozen_at)

    @property
    def quantisers(self) -> dict[str, Quantiser]:
        """Each quantiser once, by the name of the first place that has it."""
        found = {place.quantiser: name for name, place in reversed(self.places.items())}
        return {name: quantiser for quantiser, name in reversed(found.items())}

    @property
    def state(self) -> dict[str, torch.nn.Parameter]:
        """All quantisation parameters, by place and name."""
        return {
            f"{place}:{name}": parameter
            for place, quantiser in self.quantisers.items()
            for name, parameter in quantiser.named_parameters()
        }

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Those that have a gradient, before any are frozen."""
        return {name: parameter for name, parameter in self.state.items() if parameter.requires_grad}

    def put_into(self, module: GraphModule, *, training: bool, ranks: Ranks = ALONE) -> None:
        """Let a graph with nodes of those names round by what is learned."""
        averages = training and self.scales == "average"
        for node in calls(module.graph, *_FAKE):
            place = self.places.get(node.name)
            if place is None:
                continue
            name = free_name(module, f"{node.name}_place")
            sharing = ALONE if node.all_input_nodes[0].op == "get_attr" else ranks  # weights are the same in all
            module.add_module(name, Averaging(place, self, sharing) if averages else place)
            node.op, node.target, node.args, node.kwargs = "call_module", name, (node.args[0],), {}
        for layer in calls(module.graph, *INTEGER_LAYERS):
            if layer.name in self.biases:
                name = free_name(module, f"{layer.name}_bias_place")
                module.add_module(name, self.biases[layer.name])
                with module.graph.inserting_before(layer):
                    set_argument(layer, "bias", module.graph.call_module(name, (arguments(layer)["bias"],)))
        module.recompile()

    def begin(self, share: float) -> None:
        """A step begins, after such a share of all steps: from some on, scales are frozen."""
        self.are_frozen = share >= self.frozen_at
        if self.are_frozen:
            for quantiser in self.quantisers.values():
                quantiser.requires_grad_(False)

    def keep_valid(self) -> None:
        """Bring all parameters back to where they mean something."""
        for quantiser in self.quantisers.values():
            quantiser.keep_valid()

    def store(self, model: Model) -> None:
        """Write all parameters into the model's own graph."""
        if not self.places:
            return
        for node in calls(model.module.graph, *_FAKE):
            if node.name in self.places:
                self.places[node.name].quantiser.store(model.module, node)
        prevent_bias_overflow(model.module)
        round_biases(model.module)
        model.module.recompile()

    def told(self) -> str:
        """What was done with the scales, in words."""
        done = {"learn": "learned", "average": "averaged over batches", "keep": "kept"}[self.scales]
        frozen = (
            f", and stayed after {self.frozen_at:.0%} of the steps" if self.frozen_at < 1 and done != "kept" else ""
        )
        return f"the quantisation parameters of {len(self.places)} values and weights were {done}{frozen}"


def parameter_names(module: GraphModule) -> frozenset[str]:
    """The names of all stored quantisation parameters, which are no weights of the model."""
    return frozenset(
        str(operand.target)
        for node in calls(module.graph, *_FAKE)
        for operand in node.all_input_nodes[1:]
        if operand.op == "get_attr"
    )


def _biases(graph: Graph, places: Mapping[str, Place]) -> dict[str, SteppedBias]:
    found = {}
    for layer, source, weight in stepped_biases(graph):
        if source.name in places and weight.name in places:
            by, of = places[source.name].quantiser, places[weight.name].quantiser
            if len(of.scale) in (1, spec(arguments(layer)["bias"]).elements):
                found[layer.name] = SteppedBias(by, of)
    return found


def _are_computed(module: GraphModule, node: Node) -> bool:
    return any(tensor(module, operand) is None for operand in node.all_input_nodes[1:])


def _quantiser(module: GraphModule, node: Node) -> Quantiser:
    if not is_call(node, FAKE_QUANTIZE_CODEBOOK):
        return Steps(QuantisationParameters.of(module, node))
    args = arguments(node)
    values, scale = tensor(module, args["values"]), tensor(module, args["scale"])
    assert values is not None
    assert scale is not None
    return Codebook(values, scale)
