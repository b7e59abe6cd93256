"""How far the model's outputs move when a group gives up units: a curve for each group, from a few backward runs.

A layer that loses units gives ``dW x`` less than before, where ``dW`` is what its weights lost (with `reconstruct`:
what is left of that once the others made up for it by least squares). To first order an output ``z`` of the model then
moves by the derivative ``dz/dy`` times that, summed over all positions and all layers that read the group::

    error = E (sum_layers sum_positions dz/dy * dW (x - mean x))^2

over images and random projections ``z`` of the outputs. It is a curve over the number of removed units, made convex
from below, so that its slope is the price of one more unit. No labels are needed, and the time does not grow with the
number of groups. Sources: the Fisher information of weights as in Theis et al., "Faster gaze prediction with dense
networks and Fisher pruning", 2018; a budget spent where it costs least as in Frantar and Alistarh, "SPDY: accurate
pruning with speedup guarantees", 2022.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments
from lvc.compiler.ir.layers import contraction
from lvc.passes.analysis.channel_groups import ChannelGroup
from lvc.passes.budget.search import lower_hull, slope
from lvc.passes.fitting.moments import Moments
from lvc.passes.fitting.ridge import leading_solutions
from lvc.passes.pruning.edges import Edge, Taps
from lvc.passes.pruning.evidence import GAUSS_NEWTON_IMAGES, Evidence
from lvc.passes.pruning.loss import random_projection
from lvc.passes.pruning.readers import Reader

SHARES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95)
"""The shares of a group's units at which its curve is measured."""

_PROJECTIONS = 2


@dataclass(frozen=True)
class Curve:
    """The error after so many removals, both rising from 0."""

    removed: tuple[int, ...]
    error: tuple[float, ...]

    def prices(self, size: int) -> torch.Tensor:
        """Return what the 1st, 2nd, ... removal adds on the convex hull from below, ``f64[size]``."""
        points = [(float(count), error) for count, error in zip(self.removed, _rising(self.error), strict=True)]
        hull = [(0.0, 0.0), *(points[place] for place in lower_hull(points))]
        found = torch.full((size,), float("inf"), dtype=torch.float64)
        for left, right in itertools.pairwise(hull):
            found[int(left[0]) :] = slope(left, right)
        return found


def _rising(errors: Sequence[float]) -> list[float]:
    return [max(errors[: place + 1]) for place in range(len(errors))]


def measure_curves(
    groups: Sequence[ChannelGroup], scores: Mapping[str, torch.Tensor], evidence: Evidence, *, reconstruct: bool
) -> dict[str, Curve]:
    """Measure the curve of every group, its units going in the order of their scores."""
    removed = {group.name: _counts(group.size) for group in groups}
    lost = {group.name: _lost_weights(group, scores[group.name], evidence, reconstruct) for group in groups}
    sums = {group.name: [0.0] * len(removed[group.name]) for group in groups}
    layers = [edge.layer for group in groups for edge in evidence.edges(group)]
    taps = Taps(evidence.model, layers, differentiable=True)
    generator = torch.Generator().manual_seed(evidence.seed)
    data = evidence.held.first(GAUSS_NEWTON_IMAGES)
    for batch in evidence.progress.track(data.batches if layers else [], "measuring sensitivity"):
        drawn = [[random_projection(part, generator) for _ in range(_PROJECTIONS)] for part in taps.run(batch)]
        gradients = [_output_gradients(taps, torch.stack(parts).sum()) for parts in zip(*drawn, strict=True)]
        with torch.inference_mode():
            for name, levels in lost.items():
                for place, changes in enumerate(levels):
                    sums[name][place] += _moved(changes, taps, gradients, len(batch)) / (data.images * _PROJECTIONS)
    return {group.name: Curve(tuple(removed[group.name]), tuple(sums[group.name])) for group in groups}


def _counts(size: int) -> list[int]:
    return sorted({min(size - 1, max(1, round(share * size))) for share in SHARES}) if size > 1 else []


@dataclass(frozen=True)
class _Change:
    """What a layer's weights lose, in the weight's shape, and what that gives on the mean input."""

    layer: Node
    weight: torch.Tensor
    mean: torch.Tensor | None


def _lost_weights(
    group: ChannelGroup, scores: torch.Tensor, evidence: Evidence, reconstruct: bool
) -> list[tuple[_Change, ...]]:
    """What the layers that read a group lose, for each of its counts of removed units."""
    order, counts = scores.argsort(stable=True), _counts(group.size)
    return list(
        zip(*(_lost(edge, order, counts, evidence, reconstruct) for edge in evidence.edges(group)), strict=True)
    )


def _lost(
    edge: Edge, order: torch.Tensor, counts: Sequence[int], evidence: Evidence, reconstruct: bool
) -> list[_Change]:
    """What a layer loses for each count of units that go in an order."""
    weight = evidence.values(edge.member.tensor)
    readers = evidence.readers_at(edge) if reconstruct else []
    if not readers:
        masks = [torch.isin(edge.member.units, order[:count]) for count in counts]
        return [_Change(edge.layer, _masked(weight, edge.member.dim, mask).float(), None) for mask in masks]
    moments = [evidence.moments(reader) for reader in readers]
    fits = [fits_without(reader, sums, order, counts) for reader, sums in zip(readers, moments, strict=True)]
    return [_change(edge.layer, weight, readers, parts, moments) for parts in zip(*fits, strict=True)]


def _change(
    layer: Node,
    weight: torch.Tensor,
    readers: Sequence[Reader],
    parts: Sequence[torch.Tensor],
    moments: Sequence[Moments],
) -> _Change:
    means = [(reader.weight - part) @ sums.mean_x for reader, part, sums in zip(readers, parts, moments, strict=True)]
    return _Change(layer, (weight - torch.cat(list(parts)).view(weight.shape)).float(), torch.cat(means).float())


def _masked(weight: torch.Tensor, dim: int, mask: torch.Tensor) -> torch.Tensor:
    shape = [1] * weight.ndim
    shape[dim] = -1
    return weight * mask.view(shape)


def fits_without(
    reader: Reader, moments: Moments, order: torch.Tensor, counts: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Yield for each count the best weights of a reader without the first so many units of an order.

    They are ``f64[outputs, columns]``, with zeros in the columns of those units.
    """
    goes = torch.full((len(order) + 1,), len(order))  # the last is for columns that belong to no unit, and stay
    goes[order] = torch.arange(len(order))
    last = goes[reader.units].argsort(descending=True, stable=True)
    left = [int((goes[reader.units] >= count).sum()) for count in counts]
    xx = moments.centred()[0][last][:, last]
    weight = reader.weight[:, last]
    for count, part in zip(left, leading_solutions(xx, xx @ weight.T, weight, left), strict=True):
        fitted = torch.zeros_like(reader.weight)
        fitted[:, last[:count]] = part
        yield fitted


def _output_gradients(taps: Taps, projection: torch.Tensor) -> dict[Node, torch.Tensor]:
    """The derivative of a projection of the outputs by what each layer gives."""
    gradient = torch.autograd.grad(
        projection,
        list(taps.results.values()),
        retain_graph=True,
        materialize_grads=True,  # some layers lead to integers alone
    )
    return dict(zip(taps.results, gradient, strict=True))


def _moved(
    changes: Sequence[_Change], taps: Taps, gradients: Sequence[Mapping[Node, torch.Tensor]], images: int
) -> float:
    """Return the squared movement of the projections, summed over them and the images of a batch."""
    total = torch.zeros(len(gradients), images)
    for change in changes:
        given = _apply(change, taps.values[change.layer])
        for row, gradient in zip(total, gradients, strict=True):
            moved = given * gradient[change.layer]
            row += taps.image_sums(change.layer, moved, images)
    return float(total.square().sum())


def _apply(change: _Change, value: torch.Tensor) -> torch.Tensor:
    """Run a layer with the weights that it lost."""
    args = {**arguments(change.layer), "input": value, "weight": change.weight, "bias": None}
    result: torch.Tensor = change.layer.target(**args)  # type: ignore[operator]
    if change.mean is None:
        return result
    return result - change.mean.view(-1, *[1] * (-1 - contraction(change.layer).axis))
