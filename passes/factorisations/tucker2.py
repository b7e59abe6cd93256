"""A 1x1 convolution to few channels, a window between few channels, and a 1x1 convolution to all.

The two pointwise layers are principal axes of what the layer reads and gives, found in turns, each for the other.
Sources: Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile applications",
2016, section 3.1; De Lathauwer et al., "On the best rank-1 and rank-(R1, R2, ..., RN) approximation of higher-order
tensors", 2000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.low_rank.axes import mode_axes, principal_axes, times
from lvc.passes.low_rank.factorisation import Decomposition, Factorisation, Ranks
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.statistics import Statistics

_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class Tucker2(Factorisation):
    """1x1 to few channels, the window between few channels, 1x1 to all channels."""

    name: ClassVar[str] = "tucker2"

    def refusal(self, kernel: Kernel) -> str | None:
        return "its window is 1x1, which is for svd" if kernel.window == (1, 1) else None

    def full_ranks(self, kernel: Kernel) -> Ranks:
        outputs, inputs, area = kernel.outputs // kernel.groups, kernel.weight.shape[1], kernel.weight[0, 0].numel()
        return min(inputs, outputs * area), min(outputs, inputs * area)

    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        (read, made), groups = ranks, kernel.groups
        return (
            kernel.pointwise(shape_of(groups * read, kernel.weight.shape[1], 1, 1)),
            kernel.with_weight(shape_of(groups * made, read, *kernel.window)),
            kernel.pointwise(shape_of(kernel.outputs, made, 1, 1)),
        )

    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        root, inverse = known.roots(kernel.inputs)
        whole = times(kernel.weight, root.T, 1)
        energies, axes = principal_axes(known.output_moments(whole))
        read, made = self.full_ranks(kernel)

        def weights(ranks: Ranks) -> tuple[torch.Tensor, ...]:
            outputs = axes[:, : ranks[1]]
            inputs = mode_axes(times(whole, outputs.T, 0), 1)[1][:, : ranks[0]]
            for _ in range(0 if known.outputs is not None else _TURNS):
                outputs = mode_axes(times(whole, inputs.T, 1), 0)[1][:, : ranks[1]]
                inputs = mode_axes(times(whole, outputs.T, 0), 1)[1][:, : ranks[0]]
            return inputs.T @ inverse, times(times(whole, outputs.T, 0), inputs.T, 1), outputs

        return Decomposition((mode_axes(whole, 1)[0][:read], energies[:made]), weights)
