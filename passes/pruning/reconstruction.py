"""After a removal, give the layers that lost inputs the weights that best restore what they gave before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import add_tensor, arguments, is_call, set_argument, spec, store, tensor
from lvc.compiler.ir.layers import MATRIX_LAYERS, contraction, factors, group_count
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.inspection import peak_activation_bytes
from lvc.compiler.pipeline.passes import Outcome
from lvc.passes.analysis.calibration import Calibration
from lvc.passes.analysis.channels.proof import Kept
from lvc.passes.analysis.layer_rows import input_rows, output_rows, positions
from lvc.passes.analysis.sweep import Sweep
from lvc.passes.pruning.junctions import find_junction
from lvc.passes.pruning.least_squares import Gathering, Moments, solve
from lvc.passes.pruning.readers import check_layer, rows_wanted


def reconstruct(before: Model, after: Model, kept: Kept, data: Calibration, outcome: Outcome) -> None:
    """Fit each layer of ``after`` that lost inputs to what it gave in ``before``, and say how many were fitted.

    As much of the data is used as fits into memory. ``kept`` says which indices of each value stayed, see
    `Channels.kept`.

    Layers are taken in graph order, each seeing what the fitted layers before it give, so that a layer also makes up
    for what those could not. Where its result is added to another value, it makes up for that as well (see
    `junctions`), unless the images are too few to tell how.
    """
    bytes_of_a_batch = peak_activation_bytes(before) + peak_activation_bytes(after)
    used = data.fitting(bytes_of_a_batch)
    old, new = Sweep(before, used.inputs), Sweep(after, used.inputs)
    known = {node.name: node for node in before.module.graph.nodes}
    generator = torch.Generator().manual_seed(0)
    narrowed = _narrowed(after, kept)
    reasons = {layer: check_layer(layer) for layer in narrowed}
    fitted = [layer for layer in narrowed if reasons[layer] is None]
    for layer in narrowed:
        if reason := reasons[layer]:
            outcome.skip(layer, f"not reconstructed: {reason}")
    for layer in fitted:
        left = kept[layer.name][contraction(layer).axis]
        own = [_channels(value, layer, left) for value in old.past(known[layer.name])]
        new.until(layer)
        goals = [own]
        if junction := find_junction(layer, fitted):
            totals = (_channels(value, layer, left) for value in old.past(known[junction.total.name]))
            goals.append(list(map(partial(junction.wanted, after.module), totals, new.values(junction.other), own)))
        halves = _moments(layer, new.values(layer.args[0]), goals, generator)  # type: ignore[arg-type]
        _fit(after, layer, halves, len(goals))
    outcome.notes.append(f"{len(fitted)} layers reconstructed on {used.different} images")


def _channels(value: torch.Tensor, layer: Node, left: torch.Tensor | None) -> torch.Tensor:
    """What a layer gave, or a value like it, with the channels that are left to it."""
    return value if left is None else value.index_select(contraction(layer).axis, left.nonzero()[:, 0])


def _narrowed(model: Model, kept: Kept) -> list[Node]:
    """Return the layers whose weight lost inputs."""
    layers = [n for n in model.module.graph.nodes if is_call(n, *MATRIX_LAYERS)]
    weights = {n: factors(n)[1] for n in layers}
    return [n for n, w in weights.items() if w.op == "get_attr" and kept[w.name][contraction(n).read] is not None]


@dataclass
class _Halves:
    """What a group of channels of a layer reads and shall give, in every other batch and in the rest.

    The outputs are those of one goal after the other.
    """

    even: Gathering
    odd: Gathering

    @classmethod
    def empty(cls, columns: int, outputs: int) -> _Halves:
        return cls(Gathering(columns, outputs), Gathering(columns, outputs))

    def whole(self) -> Moments:
        return self.even.moments() + self.odd.moments()

    def add(self, batch: int, x: torch.Tensor, y: torch.Tensor) -> None:
        (self.odd if batch % 2 else self.even).add(x, y)

    def gain(self, start: torch.Tensor) -> float:
        """How much nearer the fit to the second goal is to it than the fit to the first, on batches of the other half.

        It is a squared error, summed.
        """
        count = len(start)
        total, gained = slice(count, None), 0.0
        halves = self.even.moments(), self.odd.moments()
        for seen, unseen in (halves, halves[::-1]):
            weight, bias = solve(seen, start.repeat(2, 1))
            wanted = unseen.of_outputs(total)
            gained += wanted.error(weight[:count], bias[:count]) - wanted.error(weight[count:], bias[count:])
        return gained


def _moments(
    layer: Node,
    values: Sequence[torch.Tensor],
    goals: Sequence[Sequence[torch.Tensor]],
    generator: torch.Generator,
) -> list[_Halves]:
    """Gather what each group of channels of a layer reads, and what it shall give by each goal."""
    groups = group_count(layer)
    found: list[_Halves] = []
    for batch, (value, *targets) in enumerate(zip(values, *goals, strict=True)):
        at = positions(targets[0], layer, rows_wanted(layer, len(values)), generator)
        rows = input_rows(value, layer, targets[0].shape, at)
        wanted = zip(*(output_rows(target, layer, at).chunk(groups, 1) for target in targets), strict=True)
        pairs = [(x, torch.cat(y, 1)) for x, y in zip(rows.chunk(groups, 1), wanted, strict=True)]
        found = found or [_Halves.empty(x.shape[1], y.shape[1]) for x, y in pairs]
        for halves, (x, y) in zip(found, pairs, strict=True):
            halves.add(batch, x, y)
    return found


def _fit(model: Model, layer: Node, found: Sequence[_Halves], goals: int) -> None:
    """Fit to the last goal if that brings the layer nearer to it than the first does, else to the first."""
    weight = tensor(model.module, arguments(layer)["weight"])
    assert weight is not None
    starts = weight.detach().flatten(1).double().chunk(len(found))
    outputs = len(starts[0])
    place = 0
    if goals > 1 and found[0].odd.moments().count:
        place = int(sum(map(_Halves.gain, found, starts)) > 0)
    chosen = slice(place * outputs, (place + 1) * outputs)
    sums = [halves.whole().of_outputs(chosen) for halves in found]
    parts = [solve(part, start) for part, start in zip(sums, starts, strict=True)]
    _store(model, layer, torch.cat([part for part, _ in parts]), torch.cat([bias for _, bias in parts]))


def _store(model: Model, layer: Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    args = arguments(layer)
    known = spec(args["weight"])
    store(model.module, str(args["weight"].target), weight.view(known.shape).to(known.dtype))
    old = args["bias"]
    if old is not None and old.op == "get_attr" and len(old.users) == 1:
        store(model.module, str(old.target), bias.to(spec(old).dtype))
        return
    hint = str(args["weight"].target).removesuffix("weight") + "bias"
    set_argument(layer, "bias", add_tensor(model.module, layer, hint, bias.to(known.dtype)))
