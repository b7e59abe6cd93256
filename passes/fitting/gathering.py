"""Moments of values of a model over data: of what layers read, row by row, and of the channels of any value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import torch
from torch.fx import Node

from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.graph import arguments, spec
from lvc.compiler.ir.layers import factors, group_count
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Progress, Silence
from lvc.compiler.running.compute import Values, compute
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.run import Run
from lvc.passes.fitting.layer_rows import in_groups, input_rows, positions, rows_wanted
from lvc.passes.fitting.moments import Gathering, Moments


def row_moments(
    model: Model, layers: Sequence[Node], data: Calibration, seed: int = 0, progress: Progress | None = None
) -> dict[Node, Moments]:
    """Return the moments of what layers read, in rows as `layer_rows` has them, for each group of channels.

    The layers pass `check_layer`. They are ``[groups, columns]``, without outputs. Of each layer as many rows are drawn
    as are enough to know them.
    """
    found = {layer: Gathering(_columns(layer), 0, group_count(layer)) for layer in layers}
    rows = _Rows(model, layers, data, seed)
    for batch in (progress or Silence()).track(data.batches, "gathering moments"):
        rows.run(batch)
        for layer, x in rows.drawn:
            found[layer].add(x, x[..., :0])
    return {layer: sums.moments() for layer, sums in found.items()}


def channel_moments(
    model: Model, values: Collection[tuple[Node, int]], data: Calibration, progress: Progress | None = None
) -> dict[tuple[Node, int], Moments]:
    """Return the moments of the channels of values, ``[channels]``, without outputs: every place of every image counts.

    ``values`` says with each which dimension holds its channels, such as `channel_dim` of a layer's result; layers that
    share a value may differ in that.
    """
    found = {(node, dim): Moments.empty(spec(node).shape[dim], 0) for node, dim in values}

    def look(node: Node, parts: Sequence[torch.Tensor]) -> None:
        for part in parts:
            for value, dim in found:
                if value is node:
                    rows = part.movedim(dim, -1).reshape(-1, part.shape[dim])
                    found[node, dim].add(rows, rows[:, :0])

    run = Run(model, {node: partial(look, node) for node, _ in values})
    for batch in (progress or Silence()).track(data.batches, "gathering moments"):
        run(batch)
    return found


def _columns(layer: Node) -> int:
    weight = spec(arguments(layer)["weight"])
    return weight.elements // weight.shape[0]


class _Rows:
    """Runs a model and draws rows of what layers read: of one input of the signature's size after the other."""

    def __init__(self, model: Model, layers: Sequence[Node], data: Calibration, seed: int) -> None:
        self.drawn: list[tuple[Node, torch.Tensor]] = []
        self._data = data
        self._layers = layers
        self._read: dict[Node, list[torch.Tensor]] = {}
        self._made: dict[Node, list[torch.Tensor]] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._run = Run(model, instead=dict.fromkeys(layers, self._layer))

    def run(self, batch: torch.Tensor) -> None:
        self._run(batch)
        at: dict[Node, list[torch.Tensor]] = {layer: [] for layer in self._layers}
        for place in range(len(batch) // self._data.size):
            for layer, drawn in at.items():
                most = rows_wanted(layer, len(self._data))
                drawn.append(positions(self._made[layer][place], layer, most, self._generator))
        self.drawn = [(layer, self._rows(layer, drawn)) for layer, drawn in at.items()]
        self._read, self._made = {}, {}

    def _layer(self, layer: Node, values: Values, calls: Calls | None) -> torch.Tensor:
        data = factors(layer)[0]
        result = compute(layer, values, calls)
        self._read[layer], self._made[layer] = self._run.parts(data, values[data]), self._run.parts(layer, result)
        return result

    def _rows(self, layer: Node, at: Sequence[torch.Tensor]) -> torch.Tensor:
        return in_groups(input_rows(self._read[layer], layer, self._made[layer][0].shape, at), layer)
