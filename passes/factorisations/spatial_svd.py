"""A window as one that slides down, and one that slides across.

The weight is read as a matrix with a row for each input channel and line of the window, and a column for each output
channel and column of the window; its singular vectors are the two convolutions. Source: Jaderberg et al., "Speeding up
convolutional neural networks with low rank expansions", 2014, scheme 2; solved in closed form as in Tai et al.,
"Convolutional neural networks with low-rank regularization", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.passes.low_rank.axes import times
from lvc.passes.low_rank.factorisation import Decomposition, Factorisation, Ranks
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class SpatialSvd(Factorisation):
    """A window as one that slides down, then one that slides across."""

    name: ClassVar[str] = "spatial-svd"

    def refusal(self, kernel: Kernel) -> str | None:
        height, width = kernel.window
        return f"its window of {height}x{width} slides along one axis at most" if min(height, width) == 1 else None

    def full_ranks(self, kernel: Kernel) -> Ranks:
        height, width = kernel.window
        return (min(kernel.weight.shape[1] * height, kernel.outputs // kernel.groups * width),)

    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        (rank,), (height, width) = ranks, kernel.window
        down = kernel.along(0, shape_of(kernel.groups * rank, kernel.weight.shape[1], height, 1))
        return down, kernel.along(1, shape_of(kernel.outputs, rank, 1, width))

    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        outputs, inputs, height, width = kernel.weight.shape
        root, inverse = known.roots(inputs)
        whole = times(kernel.weight, root.T, 1)
        matrix = whole.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)

        def weights(ranks: Ranks) -> tuple[torch.Tensor, ...]:
            (rank,), share = ranks, values[: ranks[0]].sqrt()
            down = (left[:, :rank] * share).T.reshape(rank, inputs, height, 1)
            across = (right[:rank].T * share).reshape(outputs, width, rank).transpose(1, 2)
            return times(down, inverse.T, 1), across.reshape(outputs, rank, 1, width)

        return Decomposition((values.square(),), weights)
