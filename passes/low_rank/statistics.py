"""What is known of a layer's data: second moments of the channels that it reads, and of those that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.layers import channel_dim, factors
from lvc.compiler.ir.model import Model
from lvc.compiler.running.images import Calibration
from lvc.passes.fitting.gathering import channel_moments
from lvc.passes.fitting.moments import MOST_COLUMNS
from lvc.passes.fitting.ridge import no_covariance
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.layer import Layer

RIDGE = 1e-4
"""Added to second moments, relative to the mean of their diagonal: channels that never moved on the data might."""


@dataclass(frozen=True)
class Statistics:
    """Covariances over all places of all images, ``f64[in, in]`` and ``f64[out, out]``, and the mean of what is given,
    ``f64[out]``; None where nothing is known.

    Without data every channel is taken to vary alike, and on its own.
    """

    inputs: torch.Tensor | None = None
    outputs: torch.Tensor | None = None
    mean: torch.Tensor | None = None

    def split(self, kernel: Kernel) -> Iterator[Statistics]:
        """What is known of each group of channels of a kernel."""
        read, made = kernel.inputs // kernel.groups, kernel.outputs // kernel.groups
        for group in range(kernel.groups):
            yield Statistics(_block(self.inputs, group, read), _block(self.outputs, group, made))

    def roots(self, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A square root ``L`` of the inputs' covariance, ``L L^T``, and its inverse, ``f64[in, in]`` each."""
        if self.inputs is None:
            unit = torch.eye(channels, dtype=torch.float64)
            return unit, unit
        values, axes = torch.linalg.eigh(self.inputs)
        spread = (values.clamp(min=0) + RIDGE * values.mean().clamp(min=1e-30)).sqrt()
        return axes * spread, (axes / spread).T

    def output_moments(self, weight: torch.Tensor) -> torch.Tensor:
        """Second moments ``f64[out, out]`` of what a weight ``f64[out, in, ...]`` gives.

        Without data those for inputs that all vary alike; a trace of these keeps the others from being singular.
        """
        rows = weight.flatten(1)
        plain = rows @ rows.T
        if self.outputs is None:
            return plain
        return _unit(self.outputs) + RIDGE * _unit(plain)


def measure(model: Model, layers: Sequence[Layer], data: Calibration) -> dict[Layer, Statistics]:
    """Run data through a model; return what is known of each layer, but for sides of very many channels.

    `CompileError` for values that are not finite.
    """
    read = {layer: (value := factors(layer.node)[0], channel_dim(layer.node, value)) for layer in layers}
    made = {layer: (layer.node, channel_dim(layer.node, layer.node)) for layer in layers}
    few = [(value, dim) for value, dim in (*read.values(), *made.values()) if spec(value).shape[dim] <= MOST_COLUMNS]
    moments = channel_moments(model, few, data)
    covariances = {place: found.centred()[0] for place, found in moments.items()}
    if not all(bool(covariance.isfinite().all()) for covariance in covariances.values()):
        raise no_covariance()
    means = {place: found.mean_x for place, found in moments.items()}
    return {
        layer: Statistics(covariances.get(read[layer]), covariances.get(made[layer]), means.get(made[layer]))
        for layer in layers
    }


def _unit(moments: torch.Tensor) -> torch.Tensor:
    return moments / moments.trace().clamp(min=1e-30)


def _block(matrix: torch.Tensor | None, group: int, size: int) -> torch.Tensor | None:
    if matrix is None:
        return None
    part = slice(group * size, (group + 1) * size)
    return matrix[part, part]
