"""What options of layers do on data: each fitted to what its layer gives, and judged by the model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from lvc.compiler.ir.closing import without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.memory import activation_bytes
from lvc.compiler.running.rerun import Rerun
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option
from lvc.passes.low_rank.refit import refit
from lvc.passes.low_rank.statistics import Statistics, measure
from lvc.passes.pruning.loss import relative_error

Made = TypeVar("Made", bound=Option)

JUDGED = 8
"""So many images options are judged on, and as many others they are fitted to: their order is known from few."""

Runs = list[dict[torch.fx.Node, torch.Tensor]]

_MOST_BYTES = 2 << 30
"""Of all values of these images, which are kept, and of a run that differs."""


class Study:
    """A model on data; without data nothing is known, and the outputs are taken to move as the layers do."""

    def __init__(self, model: Model, layers: Sequence[Layer], data: Calibration | None) -> None:
        self.known = dict.fromkeys(layers, Statistics()) if data is None else measure(model, layers, data)
        self._fitted_on: Runs = []
        self._judged_on: Runs = []
        if data is None:
            return
        twin = without_closing(model)
        self._rerun = Rerun(twin)
        self._nodes = {node.name: node for node in twin.module.graph.nodes}
        most = max(2, _MOST_BYTES // (2 * activation_bytes(model))) * data.size
        few = data.first(min(2 * JUDGED, most)).halves()
        self._fitted_on, self._judged_on = ([self._rerun.run(batch) for batch in half.batches] for half in few)

    def fitted(self, layer: Layer, option: Made) -> Made:
        """The option fitted to what its layer gives, its own error being that on the data, if that varies on them."""
        if not self._fitted_on:
            return option
        kernels, bias = refit(option.kernels, *self._images(layer, self._fitted_on))
        fitted, (read, made) = replace(option, kernels=kernels, bias=bias), self._images(layer, self._judged_on)
        spread = float((made - made.mean((0, 2, 3), keepdim=True)).square().sum())
        own = float((fitted.apply(read) - made).square().sum()) / spread if spread > 0 else option.own
        return replace(fitted, own=own)

    def judged(self, layer: Layer, option: Made) -> Made:
        """The option with how far the outputs move for it."""
        if not self._judged_on:
            return replace(option, error=option.own)
        errors: list[torch.Tensor] = []
        node = self._nodes[layer.node.name]
        data = node.all_input_nodes[0]
        for values in self._judged_on:
            images = option.apply(layer.images(values[data]))
            found = self._rerun.again(values, node, layer.like(images, values[node]))
            errors += map(relative_error, found, self._rerun.outputs(values))
        return replace(option, error=float(torch.stack(errors).mean()))

    def _images(self, layer: Layer, runs: Runs) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer reads and gives, all images of some runs together."""
        node = self._nodes[layer.node.name]
        data = node.all_input_nodes[0]
        read = torch.cat([layer.images(values[data]) for values in runs])
        return read, torch.cat([layer.images(values[node]) for values in runs])
