"""Round weights so that each layer's output on calibration data changes least.

Layers are taken in graph order, and each is fitted to what it gives in the floating-point model while it reads what it
truly gets in the quantised one; so it also makes up for the errors of the layers before. Three steps, all in closed
form: weights by ridge regression about those that there are, rounding column by column with each error passed on to
the columns that are still free, and the bias that restores the mean output, as `correct-bias` does.

Weights of few bits get, for each output channel, the scale near the one that they have that leaves the least error.
Few images say little about many weights. So how stiff the regression is, and how far errors are passed on, is tried on
every other image and judged on the rest, for each layer; to leave the weights alone is among the choices.

What is nearer layer by layer need not be so at the outputs. Images held out from all this tell whether the model is
nearer there than with the weights as they were and corrected biases. Where too few can be held out, or they leave it
open, biases are all that is corrected.

Source: Frantar et al. 2023, "GPTQ", section 3.3; Hubara et al. 2021, "Accurate post training quantization with small
calibration sets", section 3.1 (layers in order on quantised inputs); Nagel et al. 2020, "Up or down? Adaptive rounding
for post-training quantization", for the aim; `lvc.passes.quantisation.rounding` for the solution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.codebook import FAKE_QUANTIZE_CODEBOOK
from lvc.compiler.pipeline.passes import Outcome, option
from lvc.passes.fitting.layer_rows import in_groups, input_rows, output_rows, positions
from lvc.passes.fitting.moments import Moments
from lvc.passes.fitting.ridge import NormalEquations
from lvc.passes.quantisation.bias_correction import bias_correction, restore_means
from lvc.passes.quantisation.layer_pass import IMAGES, LayerPass, Mending
from lvc.passes.quantisation.layerwise import (
    Layerwise,
    set_scale,
    set_weight,
    stored_weight,
)
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.quantisation.rounding import Places, ordered, placed

_ROWS = 12288
_ROWS_AT_ONCE = 1024
_STIFFNESS = (math.inf, 10.0, 1.0, 0.1)
_DAMPING = (math.inf, 0.1, 0.01)
_MOST_JUDGED = 128
_FEW = 64  # numbers that a weight can be
_FACTORS = (0.7, 0.76, 0.82, 0.88, 0.94, 1.0, 1.06, 1.12, 1.2)


@dataclass(frozen=True, kw_only=True)
class RoundWeights(LayerPass):
    """Fit and round the weights of each quantised layer to what it gives in floating point, on calibration data."""

    name: ClassVar[str] = "round-weights"

    images: int = option(512, IMAGES)

    @property
    def mendings(self) -> Sequence[Mending]:
        rounding = Mending("rounding weights", "with rounded weights", self.images, round_weights, is_fit=True)
        return bias_correction(images=64), rounding

    def layers(self, model: Model, outcome: Outcome) -> list[Node]:
        return [layer for layer in super().layers(model, outcome) if not leave_codebook(layer, outcome)]


def round_weights(both: Layerwise, layer: Node) -> None:
    """Fit and round the weight of a layer of the quantised model, and restore its mean output."""
    inputs, wanted = both.inputs(layer), both.wanted(layer)
    fit(both.model, layer, *gather(layer, inputs, wanted, both.generator))
    restore_means(both, layer, wanted)


def leave_codebook(layer: Node, outcome: Outcome) -> bool:
    """Whether a weight stays as it is, since an output channel of it has several scales."""
    weight = arguments(layer)["weight"]
    if not is_call(weight, FAKE_QUANTIZE_CODEBOOK) or spec(arguments(weight)["scale"]).shape[1] == 1:
        return False
    outcome.skip(layer, "its weight has scales for groups of input channels, and rounding knows one for each output")
    return True


def fit(model: Model, layer: Node, tried: Moments, judged: Moments) -> None:
    """Give a layer the weights that serve best on both halves of the data; the mean of its output may move."""
    stored, everything = stored_weight(model, layer), tried + judged
    groups, columns = everything.x.shape
    start, order = stored.reshape(groups, -1, columns), everything.variances.sum(0).argsort()
    parameters = QuantisationParameters.of(model.module, arguments(layer)["weight"])
    places = Places.of(start, parameters, order)
    some = slice(None, None, -(-start.shape[1] // _MOST_JUDGED))
    factors, few = scale_factors(parameters), start[:, some]
    first, second = (ordered(half.of_outputs(some).normal_equations(few), order) for half in (tried, judged))
    stiffness, damping = choose(places.some(some), first, second, factors)
    equations = ordered(everything.normal_equations(start), order)
    places, integers = placed(equations, places, equations.solution(stiffness), damping, factors)
    weight = places.weights(integers, order)
    set_weight(model.module, layer, weight.reshape(stored.shape))
    if len(factors) > 1:
        set_scale(model.module, layer, places.scale.flatten())


def scale_factors(parameters: QuantisationParameters) -> Sequence[float]:
    """Return by what scales may be multiplied; fine steps are as good in any size."""
    is_free = parameters.axis is not None and bool((parameters.scale.log2() % 1 > 0).any())
    return _FACTORS if is_free and parameters.points <= _FEW else (1.0,)


def choose(
    places: Places, tried: NormalEquations, judged: NormalEquations, factors: Sequence[float]
) -> tuple[float, float]:
    """Return how stiff and how damped, tried on the one and judged by the other."""
    changes = {stiffness: tried.solution(stiffness) for stiffness in _STIFFNESS}
    stiffness = min(changes, key=lambda value: judged.error(changes[value]))
    found = {damping: placed(tried, places, changes[stiffness], damping, factors) for damping in _DAMPING}
    errors = {damping: judged.error(sizes.change(integers)) for damping, (sizes, integers) in found.items()}
    return stiffness, min(errors, key=errors.__getitem__)


def gather(
    layer: Node, inputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[Moments, Moments]:
    """Sum over a draw of places what a layer reads and what it shall give: of every other input, and of the rest."""
    each = -(-_ROWS // len(inputs))
    together = max(1, _ROWS_AT_ONCE // each)
    halves: list[Moments] = []
    for half in range(min(2, len(inputs))):
        pairs = list(zip(inputs[half::2], wanted[half::2], strict=True))
        for start in range(0, len(pairs), together):
            x, y = drawn(layer, pairs[start : start + together], each, generator)
            if len(halves) == half:
                halves.append(Moments.empty(x.shape[2], y.shape[2], len(x)))
            halves[half].add(x, y)
    return halves[0], halves[-1]


def drawn(
    layer: Node, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], each: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return so many rows of each input and output, ``[groups,rows,in]`` and ``[groups,rows,out]``."""
    values, targets = zip(*pairs, strict=True)
    at = [positions(target, layer, each, generator) for target in targets]
    x, y = input_rows(values, layer, targets[0].shape, at), output_rows(targets, layer, at)
    return in_groups(x, layer), in_groups(y, layer)
