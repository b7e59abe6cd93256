"""Each channel convolved on its own, with one or more windows, and a 1x1 convolution over what comes of it.

For each input channel the weight is a matrix with a row for each output channel and a column for each place of the
window; its singular vectors are that channel's windows. Source: Guo et al., "Network decoupling: from regular to
depthwise separable convolutions", 2018, theorem 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.low_rank.factorisation import Decomposition, Factorisation, Ranks
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class DepthwiseSeparable(Factorisation):
    """Each channel convolved on its own with a few windows, then 1x1."""

    name: ClassVar[str] = "depthwise-separable"

    def refusal(self, kernel: Kernel) -> str | None:
        if kernel.window == (1, 1):
            return "its window is 1x1, which is for svd"
        return "it convolves each channel on its own as it is" if kernel.weight.shape[1] == 1 else None

    def full_ranks(self, kernel: Kernel) -> Ranks:
        return (min(kernel.weight[0, 0].numel(), kernel.outputs // kernel.groups),)

    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        (rank,), channels = ranks, kernel.weight.shape[1]
        windows = kernel.with_weight(shape_of(kernel.inputs * rank, 1, *kernel.window), groups=kernel.inputs)
        return windows, kernel.pointwise(shape_of(kernel.outputs, channels * rank, 1, 1))

    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        outputs, inputs = kernel.weight.shape[:2]
        made, values, windows = torch.linalg.svd(kernel.weight.flatten(2).movedim(1, 0), full_matrices=False)
        variances = torch.ones(inputs, 1) if known.inputs is None else known.inputs.diagonal().clamp(min=0)[:, None]

        def weights(ranks: Ranks) -> tuple[torch.Tensor, ...]:
            (rank,) = ranks
            products = made[:, :, :rank] * values[:, None, :rank]
            return (
                windows[:, :rank].reshape(inputs * rank, -1),
                products.movedim(1, 0).reshape(outputs, inputs * rank),
            )

        return Decomposition(((values.square() * variances).sum(0),), weights, inputs)
