"""Where layers read the channels of a group, and runs of a graph that look at those places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from lvc.compiler.ir.closing import closing_functions
from lvc.compiler.ir.graph import is_call
from lvc.compiler.ir.layers import LAYERS, contraction, factors, group_count
from lvc.compiler.ir.model import Model
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
    return value.movedim(contraction(layer).axis, 0).flatten(1).double()


def sample_sums(layer: Node, value: torch.Tensor, images: int) -> torch.Tensor:
    """Return the sum of each channel in each image, ``f64[images,n]``; what is of one image lies together.

    There is one row for all where the leading dimension is none of images.
    """
    rows = value.movedim(contraction(layer).axis, -1)
    return rows.reshape(images_in(rows, images), -1, rows.shape[-1]).sum(1).double()


def images_in(value: torch.Tensor, images: int) -> int:
    """Into how many images a value falls: those of the batch, or 1 if its leading dimension is none of images."""
    return images if value.shape[0] % images == 0 else 1


class Taps(Interpreter):
    """Runs a graph and keeps what some layers read in ``values``, and what they make of it in ``results``.

    With ``differentiable`` each of them reads a copy of its own, whose derivative is that of this reading alone.
    ``tensors`` stand for stored tensors of these names; derivatives reach no others. The outputs are those in front of
    functions that close the model (`lvc.compiler.ir.closing`), for behind them little moves where they saturate.
    """

    def __init__(
        self,
        module: GraphModule,
        layers: Iterable[Node],
        tensors: Mapping[str, torch.Tensor] | None = None,
        *,
        differentiable: bool = False,
    ) -> None:
        super().__init__(module)
        self.values: dict[Node, torch.Tensor] = {}
        self.results: dict[Node, torch.Tensor] = {}
        self._layers = frozenset(layers)
        self._tensors = dict(tensors or {})
        self._differentiable = differentiable
        self._closing = frozenset(closing_functions(module.graph))

    def run(self, *inputs: Any, **options: Any) -> tuple[torch.Tensor, ...]:
        """Run a batch; return the outputs."""
        self.values, self.results = {}, {}
        outputs: tuple[torch.Tensor, ...] = super().run(*inputs, **options)
        return outputs

    def run_node(self, n: Node) -> Any:
        if n in self._closing:
            return self.env[n.all_input_nodes[0]]
        if n not in self._layers:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        self.values[n] = self.tap(n, args[0])
        self.results[n] = n.target(self.values[n], *args[1:], **kwargs)  # type: ignore[operator]
        return self.results[n]

    def tap(self, layer: Node, value: torch.Tensor) -> torch.Tensor:
        """Return what the layer shall read in place of a value."""
        if not self._differentiable:
            return value
        return value * 1 if value.requires_grad else value.detach().requires_grad_()

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._tensors[target] if target in self._tensors else super().get_attr(target, args, kwargs).detach()
