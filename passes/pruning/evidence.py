"""What criteria judge by: weights sorted by unit, and what layers read on calibration data. Computed when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch.fx import Node

from lvc.compiler.data.labelled import UNKNOWN, Truth, checked_mask
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, is_call, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import SEGMENT, is_class_scores, task_of_model
from lvc.compiler.pipeline.workspace import Progress, Silence
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels, Member
from lvc.passes.fitting.gathering import row_moments
from lvc.passes.fitting.moments import Moments
from lvc.passes.pruning.criterion import Criterion
from lvc.passes.pruning.edges import Edge, Taps, channel_rows, edges_of, sample_sums
from lvc.passes.pruning.loss import classification_loss, random_projection, segmentation_loss
from lvc.passes.pruning.readers import Reader, readers_of

T = TypeVar("T")

GAUSS_NEWTON_IMAGES = 128
"""As many images as derivatives of the outputs are averaged over."""


@dataclass(frozen=True)
class Readings:
    """What the data showed of the ``n`` channels that a layer reads.

    ``mean`` and ``zeros`` are the mean absolute value and the share of zeros of each channel, ``f64[n]``; ``pooled`` is
    the sum of each channel in each sample, ``f64[samples,n]``.
    """

    mean: torch.Tensor
    zeros: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class Gradients:
    """How the loss depends on the ``n`` channels that a layer reads.

    ``gates`` is the derivative by a gate on each channel in each sample, ``f64[samples,n]``; ``mean`` is the mean
    absolute derivative by an element, ``f64[n]``.
    """

    gates: torch.Tensor
    mean: torch.Tensor


class Evidence:
    """A model, its groups, and its calibration data if there are any."""

    def __init__(
        self,
        model: Model,
        channels: Channels,
        data: Calibration | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.channels = channels
        self.seed = seed
        self.progress = progress or Silence()
        self._data = data
        self._computed: dict[Criterion, Any] = {}
        self._nodes: dict[str, Node] = {node.name: node for node in model.module.graph.nodes}
        self._stored = {str(n.target): n for n in model.module.graph.nodes if n.op == "get_attr"}

    @property
    def has_data(self) -> bool:
        return self._data is not None

    @property
    def data(self) -> Calibration:
        if self._data is None:
            raise UsageError("there is no calibration data", help="give some with --data calib=PATH")
        return self._data

    @cached_property
    def held(self) -> Calibration:
        """The data in batches of which all values are held, for derivatives."""
        return self.data.held(self.model)

    @cached_property
    def labels(self) -> tuple[torch.Tensor, ...]:
        """What the images that are `held` show, for criteria that go by the loss: of a classifier their classes
        ``i64[N]``, of a model that segments those of their pixels ``u8[N,H,W]``, `UNKNOWN` where they do not count."""
        segments = task_of_model(self.model) == SEGMENT
        if not segments and not is_class_scores(self.model.outputs[0].spec.shape, self.data.size):
            found = ", ".join(map(str, self.model.outputs))
            raise UsageError(
                "the model neither classifies nor segments, so its loss on labels is not known",
                why=f"its outputs are {found}, and how a network's raw outputs are trained is not in the model",
                help="take a criterion that needs no labels, for example output-error, or one of weights, such as l2",
            )
        found_labels = _masks(self.model, self.held) if segments else self.held.labels
        if found_labels is None:
            what, give = ("the class of each image", "put each class into a folder of its own")
            if segments:
                what, give = ("the class of each pixel", "give a folder with 'images' and 'masks' in it")
            raise UsageError(
                f"the data set '{self.data.name}' has no labels",
                why=f"the criterion goes by the loss, which needs {what}",
                help=f"{give}, or take a criterion that needs none, for example output-error",
            )
        return found_labels

    def once(self, criterion: Criterion, compute: Callable[[], T]) -> T:
        """Return what a criterion computes for all groups together; the first time it is asked for, compute it."""
        if criterion not in self._computed:
            self._computed[criterion] = compute()
        found: T = self._computed[criterion]
        return found

    def node(self, name: str) -> Node:
        return self._nodes[name]

    def values(self, name: str) -> torch.Tensor:
        """Return a stored tensor, ``f64``."""
        value = tensor(self.model.module, self._stored[name])
        assert value is not None
        return value.detach().double()

    def rows(self, member: Member, of: torch.Tensor | None = None) -> torch.Tensor:
        """Return a member's tensor, or another of its shape, with one row an index of its dimension."""
        value = self.values(member.tensor) if of is None else of
        return value.movedim(member.dim, 0).flatten(1) if value.ndim > 1 else value.reshape(-1, 1)

    def weights(self, group: ChannelGroup) -> Iterator[Member]:
        """Yield the members that are weights of layers: those that produce the units, then those that read them."""
        yield from group.producers
        yield from group.consumers

    def edges(self, group: ChannelGroup) -> list[Edge]:
        """Return where layers with weights read the group."""
        return self._edges[group.name]

    def readings(self, edge: Edge) -> Readings:
        return self._readings[edge.layer]

    def gradients(self, edge: Edge) -> Gradients:
        return self._gradients[edge.layer]

    def readers(self, group: ChannelGroup) -> list[Reader]:
        """Return the layers that read the group, as matrices; those that are no matrices are left out."""
        return [reader for edge in self.edges(group) for reader in self.readers_at(edge)]

    def readers_at(self, edge: Edge) -> list[Reader]:
        return readers_of(edge, self.values(edge.member.tensor))

    def moments(self, reader: Reader) -> Moments:
        """Return the second moments of what a reader's columns multiply."""
        return self._moments[reader.layer].of_group(reader.group)

    def gauss_newton(self, reader: Reader) -> torch.Tensor:
        """Return how much an error of each output of a reader matters to the model's outputs, ``f64[outputs]``.

        The squared derivative, summed over the positions, averaged over the images and over random projections of
        the model's outputs (the diagonal of the Gauss-Newton matrix).
        """
        return self._gauss_newton[reader.layer][reader.outputs]

    def curvature(self, name: str) -> torch.Tensor:
        """Return the diagonal of the loss's Hessian for a stored tensor, estimated; it has the tensor's shape."""
        return self._curvature[name]

    @cached_property
    def _edges(self) -> dict[str, list[Edge]]:
        return {group.name: edges_of(self.model, group) for group in self.channels.free}

    @cached_property
    def _layers(self) -> list[Node]:
        return list(dict.fromkeys(edge.layer for edges in self._edges.values() for edge in edges))

    @cached_property
    def _readings(self) -> dict[Node, Readings]:
        taps = Taps(self.model, self._layers)
        found: dict[Node, list[Readings]] = {layer: [] for layer in self._layers}
        with torch.inference_mode():
            for batch in self.progress.track(self.data.batches, "reading activations"):
                taps.run(batch)
                for layer, value in taps.values.items():
                    for part in taps.read(layer, value):
                        rows = channel_rows(layer, part)
                        mean, zeros = rows.abs().mean(1), (rows == 0).double().mean(1)
                        found[layer].append(Readings(mean, zeros, sample_sums(layer, part, self.data.size)))
        return {
            layer: Readings(
                torch.stack([part.mean for part in parts]).mean(0),
                torch.stack([part.zeros for part in parts]).mean(0),
                torch.cat([part.pooled for part in parts]),
            )
            for layer, parts in found.items()
        }

    @cached_property
    def _gradients(self) -> dict[Node, Gradients]:
        taps = Taps(self.model, self._layers, differentiable=True)
        found: dict[Node, list[Gradients]] = {layer: [] for layer in self._layers}
        pairs = list(zip(self.held.batches, self.labels, strict=True))
        for batch, labels in self.progress.track(pairs, "differentiating"):
            loss = _loss(taps.run(batch), labels)
            gradients = torch.autograd.grad(loss, list(taps.values.values()))
            for (layer, value), gradient in zip(taps.values.items(), gradients, strict=True):
                gates = value.detach() * gradient
                for part, slope in zip(taps.read(layer, gates), taps.read(layer, gradient), strict=True):
                    mean = channel_rows(layer, slope).abs().mean(1)
                    found[layer].append(Gradients(sample_sums(layer, part, self.data.size), mean))
        return {
            layer: Gradients(torch.cat([p.gates for p in parts]), torch.stack([p.mean for p in parts]).mean(0))
            for layer, parts in found.items()
        }

    @cached_property
    def _moments(self) -> dict[Node, Moments]:
        layers = dict.fromkeys(reader.layer for group in self.channels.free for reader in self.readers(group))
        return row_moments(self.model, list(layers), self.data, self.seed, self.progress)

    @cached_property
    def _gauss_newton(self) -> dict[Node, torch.Tensor]:
        taps = Taps(self.model, self._layers, differentiable=True)
        found: dict[Node, torch.Tensor] = {}
        data = self.held.first(GAUSS_NEWTON_IMAGES)
        generator = torch.Generator().manual_seed(self.seed)
        for batch in self.progress.track(data.batches if self._layers else [], "differentiating"):
            projection = torch.stack([random_projection(outputs, generator) for outputs in taps.run(batch)]).sum()
            gradients = torch.autograd.grad(projection, list(taps.results.values()), materialize_grads=True)
            for layer, gradient in zip(taps.results, gradients, strict=True):
                outputs = channel_rows(layer, gradient)
                found[layer] = found.get(layer, 0.0) + outputs.square().sum(1) / data.images
        return found

    @cached_property
    def _curvature(self) -> dict[str, torch.Tensor]:
        """Hutchinson's estimate: the diagonal of H is the mean of ``v * (H v)`` over random signs ``v``.

        Each input of the signature's size has signs of its own, for one draw says the less the more it is for.
        """
        names = sorted({member.tensor for group in self.channels.free for member in self.weights(group)})
        leaves = {name: self.values(name).float().requires_grad_() for name in names}
        taps = Taps(self.model, (), leaves, differentiable=True)
        found = {name: torch.zeros_like(leaf, dtype=torch.float64) for name, leaf in leaves.items()}
        generator = torch.Generator().manual_seed(self.seed)
        labels = torch.split(torch.cat(list(self.labels)), self.data.size)
        pairs = list(zip(self.data.inputs, labels, strict=True))
        for batch, classes in self.progress.track(pairs, "differentiating twice"):
            loss = _loss(taps.run(batch), classes)
            gradients = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
            signs = [torch.randint(0, 2, leaf.shape, generator=generator) * 2.0 - 1 for leaf in leaves.values()]
            curvatures = torch.autograd.grad(gradients, list(leaves.values()), signs)
            for name, sign, curvature in zip(leaves, signs, curvatures, strict=True):
                found[name] += (sign * curvature).double() / len(pairs)
        return found


def _loss(outputs: Sequence[Sequence[torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
    """The loss of a batch whose outputs come in parts."""
    loss = classification_loss if labels.ndim == 1 else segmentation_loss
    return loss([torch.cat([parts[0] for parts in outputs])], labels)


def _masks(model: Model, data: Calibration) -> tuple[torch.Tensor, ...] | None:
    """The class of each pixel of the images, as they lie in the input, a batch each; None where one has no mask."""
    size, masks = Fit.of(model.inputs).picture_size, []
    for one in data.known:
        if not isinstance(one, Truth) or one.mask is None:
            return None
        spread = one.placement.spread(checked_mask(one.mask(), one.placement.size, str(one.picture)), size, UNKNOWN)
        masks.append(torch.from_numpy(spread).to(torch.uint8))
    rows = torch.stack([masks[place % len(masks)] for place in range(data.images)])
    return torch.split(rows, [len(batch) for batch in data.batches])


def of_units(values: torch.Tensor, units: torch.Tensor, size: int) -> torch.Tensor:
    """Sum values of indices, ``[..., n]``, by the unit that each index belongs to, ``f64[..., size]``."""
    belongs = units >= 0
    summed = torch.zeros(*values.shape[:-1], size, dtype=torch.float64)
    return summed.index_add_(-1, units[belongs], values[..., belongs].double())


def mean_of_units(values: torch.Tensor, units: torch.Tensor, size: int) -> torch.Tensor:
    """As `of_units`, the mean in place of the sum."""
    count = of_units(torch.ones(len(units)), units, size)
    return of_units(values, units, size) / count.clamp(min=1)


def batch_norm_scale(evidence: Evidence, member: Member) -> torch.Tensor | None:
    """Return the scale of a batch normalisation, ``f64[n]``, if that is what a member is."""
    node = evidence.node(member.layer)
    if not is_call(node, aten.batch_norm.default):
        return None
    weight = arguments(node)["weight"]
    return evidence.values(member.tensor) if weight is not None and weight.target == member.tensor else None


Measure = Callable[[Edge], torch.Tensor]


def by_edge(evidence: Evidence, group: ChannelGroup, measure: Measure) -> Iterator[torch.Tensor]:
    """Yield for each edge of a group what was measured there, ``f64[n]``, as the mean of each unit."""
    for edge in evidence.edges(group):
        yield mean_of_units(measure(edge), edge.units, group.size)
