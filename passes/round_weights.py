"""Round weights to their grids so that each layer's output on calibration data changes least.

Layers are taken in graph order, and each is fitted to what it gives in the floating-point model while it reads what it
truly gets in the quantised one; so it also makes up for the errors of the layers before. Three steps, all in closed
form: weights by ridge regression about those that there are, rounding column by column with each error passed on to
the columns that are still free, and the bias that restores the mean output.

Few images say little about many weights. So how stiff the regression is, and how far errors are passed on, is tried on
every other image and judged on the rest, for each layer; to leave the weights alone is among the choices.

Source: Frantar et al. 2023, "GPTQ", section 3.3; Hubara et al. 2021, "Accurate post training quantization with small
calibration sets", section 3.1 (layers in order on quantised inputs); Nagel et al. 2020, "Up or down? Adaptive rounding
for post-training quantization", for the aim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.dialect import aten
from lvc.compiler.errors import UsageError
from lvc.compiler.graph import arguments, is_call, spec
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
_STIFFNESS = (math.inf, 10.0, 1.0, 0.1)
_DAMPING = (math.inf, 1.0, 0.01)


@dataclass(frozen=True, kw_only=True)
class RoundWeights(Pass):
    """Fit and round the weights of each quantised layer to what it gives in floating point, on calibration data."""

    name: ClassVar[str] = "round-weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(256, "use at most so many images, and fewer if their activations would not fit into memory")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        layers = quantised_layers(model, outcome)
        if not layers:
            return outcome
        both = Layerwise.open(model, workspace, self.data, self.images)
        generator = torch.Generator().manual_seed(workspace.seed)
        for layer in workspace.progress.track(layers, "rounding weights", len(layers)):
            halves = gather(layer, both.inputs(layer), both.wanted(layer), generator)
            fit(model, layer, *halves)
            outcome.change(layer)
        both.note(outcome)
        return outcome


def fit(model: Model, layer: Node, tried: Moments, judged: Moments) -> None:
    """Give a layer the weights and the bias that serve best on both halves of the data."""
    stored, everything = stored_weight(model, layer), tried + judged
    grid = Grid.of(model.module, arguments(layer)["weight"])
    start = stored.double().reshape(everything.xx.shape[0], -1, everything.xx.shape[1])
    stiffness = min(_STIFFNESS, key=lambda value: judged.error(fitted(start, tried, value)))
    covariance, _ = tried.centred()
    half = fitted(start, tried, stiffness)
    damping = min(_DAMPING, key=lambda value: judged.error(rounded(half, covariance, grid, value)))
    weight = rounded(fitted(start, everything, stiffness), everything.centred()[0], grid, damping).float()
    set_weight(model, layer, weight.reshape(stored.shape))
    set_bias(model, layer, everything.bias(weight).flatten())


def gather(
    layer: Node, inputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[Moments, Moments]:
    """Sum over a draw of places what a layer reads and what it shall give: of every other batch, and of the rest."""
    args = arguments(layer)
    groups = args["groups"] if is_call(layer, aten.conv2d.default) else 1
    weight = spec(args["weight"])
    rows = min(max(_ROWS_AN_INPUT * weight.elements // weight.shape[0], _LEAST_ROWS), _MOST_ROWS)
    halves: list[Moments] = []
    for place, (value, target) in enumerate(zip(inputs, wanted, strict=True)):
        at = positions(target, layer, -(-rows // len(inputs)), generator)
        x = input_rows(value, layer, target.shape, at).reshape(len(at), groups, -1)
        y = output_rows(target, layer, at).reshape(len(at), groups, -1)
        if not halves:
            halves = [Moments.empty(x.mean(0), y.shape[2]) for _ in range(2)]
        halves[place % 2].add(x, y)
    return (halves[0], halves[1]) if halves[1].rows else (halves[0], halves[0])
