"""Round weights to their grids so that each layer's output on calibration data changes least.

Layers are taken in graph order, and each is fitted to what it gives in the floating-point model while it reads what it
truly gets in the quantised one; so it also makes up for the errors of the layers before. Three steps, all in closed
form: weights by ridge regression about those that there are, rounding column by column with each error passed on to
the columns that are still free, and the bias that restores the mean output.

Source: Frantar et al. 2023, "GPTQ", section 3.3; Hubara et al. 2021, "Accurate post training quantization with small
calibration sets", section 3.1 (layers in order on quantised inputs); Nagel et al. 2020, "Up or down? Adaptive rounding
for post-training quantization", for the aim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.dialect import aten
from lvc.compiler.errors import UsageError
from lvc.compiler.graph import arguments, is_call
from lvc.compiler.model import Model
from lvc.compiler.passes import Effect, Outcome, Pass, option
from lvc.compiler.workspace import Workspace
from lvc.passes.analysis.layer_rows import input_rows, output_rows, positions
from lvc.passes.quantisation.grids import Grid
from lvc.passes.quantisation.layerwise import (
    Layerwise,
    quantised_layers,
    set_bias,
    set_weight,
    stored_weight,
)
from lvc.passes.quantisation.rounding import Moments, fitted, rounded

_LEAST_ROWS, _MOST_ROWS, _ROWS_AN_INPUT = 4096, 12288, 4


@dataclass(frozen=True, kw_only=True)
class RoundWeights(Pass):
    """Fit and round the weights of each quantised layer to what it gives in floating point, on calibration data."""

    name: ClassVar[str] = "round-weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(256, "use at most so many images, and fewer if their activations would not fit into memory")
    damping: float = option(0.01, "rounding: the share of the mean variance that is added to every input's")
    stiffness: float = option(0.1, "fitting: the same; the larger, the nearer the weights stay to what they are")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")
        for name in ("damping", "stiffness"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        layers = quantised_layers(model, outcome)
        if not layers:
            return outcome
        both = Layerwise.open(model, workspace, self.data, self.images)
        generator = torch.Generator().manual_seed(workspace.seed)
        for layer in workspace.progress.track(layers, "rounding weights", len(layers)):
            moments = gather(layer, both.inputs(layer), both.wanted(layer), generator)
            self.fit(model, layer, moments)
            outcome.change(layer)
        both.note(outcome)
        return outcome

    def fit(self, model: Model, layer: Node, moments: Moments) -> None:
        stored = stored_weight(model, layer)
        grid = Grid.of(model.module, arguments(layer)["weight"])
        inputs, outputs = moments.centred()
        weight = stored.double().reshape(inputs.shape[0], -1, inputs.shape[1])
        weight = fitted(weight, inputs, outputs, self.stiffness)
        weight = rounded(weight, inputs, grid, self.damping).float()
        set_weight(model, layer, weight.reshape(stored.shape))
        set_bias(model, layer, moments.bias(weight).flatten())


def gather(
    layer: Node, inputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], generator: torch.Generator
) -> Moments:
    """Sum over a draw of places what a layer reads, and what it shall give, group by group."""
    args = arguments(layer)
    groups = args["groups"] if is_call(layer, aten.conv2d.default) else 1
    found: Moments | None = None
    for value, target in zip(inputs, wanted, strict=True):
        columns = args["weight"].meta["spec"].elements // args["weight"].meta["spec"].shape[0]
        rows = min(max(_ROWS_AN_INPUT * columns, _LEAST_ROWS), _MOST_ROWS)
        at = positions(target, layer, -(-rows // len(inputs)), generator)
        x = input_rows(value, layer, target.shape, at).reshape(len(at), groups, -1)
        y = output_rows(target, layer, at).reshape(len(at), groups, -1)
        found = found or Moments.empty(groups, x.shape[2], y.shape[2])
        found.add(x, y)
    assert found is not None
    return found
