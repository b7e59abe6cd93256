"""Where layers read the channels of a group, and runs of a graph that look at those places."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Node

from lvc.compiler.ir.batching.axis import BatchAxis
from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.closing import closing_functions
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.layers import LAYERS, contraction, factors, group_count
from lvc.compiler.ir.model import Model
from lvc.compiler.running.compute import Values, compute
from lvc.compiler.running.run import Compute, Run
from lvc.passes.analysis.channel_groups import ChannelGroup, Member


@dataclass(frozen=True, eq=False)
class Edge:
    """One layer's reading of a group: ``units`` is ``i64[n]`` over the channels of the layer's first operand."""

    member: Member
    layer: Node
    units: torch.Tensor


def edges_of(model: Model, group: ChannelGroup) -> list[Edge]:
    """Return where layers with a stored weight read a group, in graph order."""
    weights = {member.tensor: member for member in group.consumers}
    found = []
    for node in model.module.graph.nodes:
        if not is_call(node, *LAYERS):
            continue
        weight = factors(node)[1]
        member = weights.get(str(weight.target)) if weight.op == "get_attr" else None
        if member is not None:
            found.append(_edge(member, node))
    return found


def _edge(member: Member, layer: Node) -> Edge:
    entry = contraction(layer)
    return Edge(member, layer, member.units.repeat(group_count(layer) if entry.grouped == entry.read else 1))


def channel_rows(layer: Node, value: torch.Tensor) -> torch.Tensor:
    """Return what a layer reads with one row a channel, ``f64[n, elements]``."""
    return value.movedim(contraction(layer).axis, 0).reshape(value.shape[contraction(layer).axis], -1).double()


def sample_sums(layer: Node, value: torch.Tensor, images: int) -> torch.Tensor:
    """Return the sum of each channel in each image, ``f64[images,n]``; what is of one image lies together.

    There is one row for all where the leading dimension is none of images.
    """
    rows = value.movedim(contraction(layer).axis, -1)
    return rows.reshape(images_in(rows, images), -1, rows.shape[-1]).sum(1).double()


def images_in(value: torch.Tensor, images: int) -> int:
    """Into how many images a value falls: those of the batch, or 1 if its leading dimension is none of images."""
    return images if value.ndim > 1 and value.shape[0] % images == 0 else 1


class Taps:
    """Runs a model and keeps what some layers read in ``values``, and what they make of it in ``results``.

    Values are those of the whole batch; `read` and `made` have them in parts of the signature's size. With
    ``differentiable`` each layer reads a copy of its own, whose derivative is that of this reading alone. ``tensors``
    stand for stored tensors of these names; derivatives reach no others. The outputs are those in front of functions
    that close the model (`lvc.compiler.ir.closing`), for behind them little moves where they saturate.
    """

    def __init__(
        self,
        model: Model,
        layers: Iterable[Node],
        tensors: Mapping[str, torch.Tensor] | None = None,
        *,
        differentiable: bool = False,
    ) -> None:
        self.values: dict[Node, torch.Tensor] = {}
        self.results: dict[Node, torch.Tensor] = {}
        self._tensors = tensors or {}
        self._differentiable = differentiable
        graph = model.module.graph
        leaves = [node for node in graph.nodes if node.op == "get_attr" and str(node.target) in self._tensors]
        instead: dict[Node, Compute] = {
            **dict.fromkeys(layers, self._layer),
            **dict.fromkeys(leaves, self._leaf),
            **dict.fromkeys(closing_functions(graph), _operand),
        }
        self._run = Run(model, instead=instead, differentiable=differentiable)

    def run(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """Run a batch; return the outputs of each part of it that has the signature's size."""
        self.values, self.results = {}, {}
        return self._run.each(batch)

    def read(self, layer: Node, value: torch.Tensor) -> list[torch.Tensor]:
        """What a layer read in the last run, or a value like it such as its derivative, in parts."""
        return self._run.parts(factors(layer)[0], value)

    def made(self, layer: Node, value: torch.Tensor) -> list[torch.Tensor]:
        """What a layer made in the last run, or a value like it such as its derivative, in parts."""
        return self._run.parts(layer, value)

    def image_sums(self, layer: Node, value: torch.Tensor, images: int) -> torch.Tensor:
        """Return the sum of a value like what a layer made in each image, ``[images]``.

        All is in the first image of an input whose leading dimension is none of images.
        """
        if self._run.axis(layer) == BatchAxis(0):
            return value.reshape(images, -1).sum(1)
        parts = self.made(layer, value)
        size = images // len(parts)
        sums = [part.reshape(images_in(part, size), -1).sum(1) for part in parts]
        return torch.cat([nn.functional.pad(row, (0, size - len(row))) for row in sums])

    def _layer(self, layer: Node, values: Values, calls: Calls | None) -> torch.Tensor:
        data = factors(layer)[0]
        self.values[layer] = self.tap(layer, values[data])
        known = ChainMap({data: self.values[layer]}, dict(values))
        self.results[layer] = compute(layer, known, calls, differentiable=self._differentiable)
        return self.results[layer]

    def tap(self, layer: Node, value: torch.Tensor) -> torch.Tensor:
        """Return what the layer shall read in place of a value."""
        if not self._differentiable:
            return value
        return value * 1 if value.requires_grad else value.detach().requires_grad_()

    def _leaf(self, node: Node, _: Values, __: Calls | None) -> torch.Tensor:
        return self._tensors[str(node.target)]


def _operand(node: Node, values: Values, _: Calls | None) -> torch.Tensor:
    return values[node.all_input_nodes[0]]
