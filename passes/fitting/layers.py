"""Give layers of one model the weights that best restore what values of another one were.

Layers are taken in graph order, each seeing what the fitted layers before it give, so that a layer also makes up for
what those could not. Where its result is added to another value, it makes up for that as well (see `junctions`), unless
the images are too few to tell how. Sources: He et al., "Channel pruning for accelerating very deep neural networks",
2017, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments, is_call, spec, store, tensor
from lvc.compiler.ir.layers import MATRIX_LAYERS, contraction, factors, group_count, set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.memory import peak_activation_bytes
from lvc.compiler.running.sweep import Sweep
from lvc.passes.fitting.junctions import find_junction, undo
from lvc.passes.fitting.layer_rows import in_groups, input_rows, output_rows, positions, rows_wanted
from lvc.passes.fitting.moments import MOST_COLUMNS, Gathering, Moments, solve

_TOGETHER = 16
"""Inputs whose rows are gathered at once."""


@dataclass(frozen=True)
class Target:
    """What a layer shall give: a value of the other model, of which the marked channels are left, or all."""

    value: Node
    kept: torch.Tensor | None = None


def check_layer(layer: Node) -> str | None:
    """Why a layer's weights cannot be fitted by least squares; None if they can."""
    if not is_call(layer, *MATRIX_LAYERS):
        return "it is no convolution or linear layer"
    weight = arguments(layer)["weight"]
    if weight.op != "get_attr":
        return "its weight is computed in the graph"
    if len(weight.users) > 1:
        return f"its weight is shared by {len(weight.users)} layers"
    if (bias := arguments(layer)["bias"]) is not None and bias.op != "get_attr":
        return "its bias is computed in the graph"
    columns = spec(weight).elements // spec(weight).shape[0]
    if columns > MOST_COLUMNS:
        return f"it sums {columns} products, and at most {MOST_COLUMNS} are fitted"
    return None


def fit_layers(before: Model, after: Model, targets: Mapping[Node, Target], data: Calibration) -> Calibration:
    """Fit layers of ``after``, which pass `check_layer`, each to its target in ``before``; both models take the data.

    Targets lie in the order of their layers. Nodes of one name are the same place of both models: where a layer's
    result is added to another value, the sum of that name is what shall be restored. Return what was used of the data:
    as much as fits into memory.
    """
    used = data.fitting(peak_activation_bytes(before) + peak_activation_bytes(after))
    old, new = Sweep(before, used.batches), Sweep(after, used.batches)
    known = {node.name: node for node in before.module.graph.nodes}
    generator = torch.Generator().manual_seed(0)
    layers = [node for node in after.module.graph.nodes if node in targets]
    for layer in layers:
        target = targets[layer]
        own = [_channels(value, layer, target.kept) for value in old.past(target.value)]
        new.until(layer)
        goals = [own]
        junction = find_junction(layer, layers)
        if junction and {node.name for node in (junction.total, *junction.moves)} <= known.keys():
            moved = [known[move.name] for move in junction.moves]
            totals = (undo(moved, value) for value in old.past(known[junction.total.name]))
            left = (_channels(value, layer, target.kept) for value in totals)
            others = (undo(junction.moves, value) for value in new.values(junction.other))
            goals.append(list(map(partial(junction.wanted, after.module), left, others, own)))
        halves = _halves(layer, new.values(factors(layer)[0]), goals, generator)
        _fit(after, layer, halves, len(goals))
    return used


def _channels(value: torch.Tensor, layer: Node, left: torch.Tensor | None) -> torch.Tensor:
    """What a layer gave, or a value like it, with the channels that are left to it."""
    return value if left is None else value.index_select(contraction(layer).axis, left.nonzero()[:, 0])


@dataclass
class _Halves:
    """What a layer reads and shall give, in groups of channels, in every other input and in the rest.

    The outputs of a group are those of one goal after the other.
    """

    even: Gathering
    odd: Gathering

    def whole(self) -> Moments:
        return self.even.moments() + self.odd.moments()

    def gain(self, start: torch.Tensor) -> float:
        """How much nearer the fit to the second goal is to it than the fit to the first, on inputs of the other half.

        It is a squared error, summed.
        """
        count = start.shape[1]
        total, gained = slice(count, None), 0.0
        halves = self.even.moments(), self.odd.moments()
        for seen, unseen in (halves, halves[::-1]):
            weight, bias = solve(seen, start.repeat(1, 2, 1))
            wanted = unseen.of_outputs(total)
            gained += wanted.error(weight[:, :count], bias[:, :count]) - wanted.error(weight[:, total], bias[:, total])
        return gained


def _halves(
    layer: Node,
    values: Sequence[torch.Tensor],
    goals: Sequence[Sequence[torch.Tensor]],
    generator: torch.Generator,
) -> _Halves:
    """Gather what a layer reads, and what it shall give by each goal."""
    weight, groups = spec(arguments(layer)["weight"]), group_count(layer)
    outputs, columns = weight.shape[0], weight.elements // weight.shape[0]
    sizes = columns, len(goals) * outputs // groups, groups
    found = _Halves(Gathering(*sizes), Gathering(*sizes))
    most = rows_wanted(layer, len(values))
    at = [positions(result, layer, most, generator) for result in goals[0]]
    for half, gathering in enumerate((found.even, found.odd)):
        for start in range(half, len(values), 2 * _TOGETHER):
            some = slice(start, start + 2 * _TOGETHER, 2)
            x = input_rows(values[some], layer, goals[0][0].shape, at[some])
            y = [in_groups(output_rows(goal[some], layer, at[some]), layer) for goal in goals]
            gathering.add(in_groups(x, layer), torch.cat(y, -1))
    return found


def _fit(model: Model, layer: Node, found: _Halves, goals: int) -> None:
    """Fit to the last goal if that brings the layer nearer to it than the first does, else to the first."""
    node = arguments(layer)["weight"]
    weight = tensor(model.module, node)
    assert weight is not None
    start = weight.detach().double().reshape(group_count(layer), -1, weight[0].numel())
    outputs = start.shape[1]
    place = 0
    if goals > 1 and found.odd.moments().count:
        place = int(found.gain(start) > 0)
    fitted, bias = solve(found.whole().of_outputs(slice(place * outputs, (place + 1) * outputs)), start)
    store(model.module, str(node.target), fitted.reshape(weight.shape).to(weight.dtype))
    set_bias(model.module, layer, bias.flatten())
