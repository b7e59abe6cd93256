"""A layer that makes few channels, and a pointwise one that makes all of them of these.

With ``U`` the ``R`` principal axes of what a layer ``W`` gives, ``U U^T W`` is the nearest of all layers of rank ``R``
to it in its output, whatever its window. Sources: Zhang et al., "Accelerating very deep convolutional networks for
classification and detection", 2015, section 3.1; for a plain matrix this is its singular value decomposition weighted
by the data.
"""

from __future__ import annotations

import torch

from lvc.passes.low_rank.axes import principal_axes, times
from lvc.passes.low_rank.factorisation import Decomposition, Factorisation, Ranks
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.statistics import Statistics


class OutputAxes(Factorisation):
    """The window with few output channels, then 1x1."""

    def full_ranks(self, kernel: Kernel) -> Ranks:
        return (min(kernel.outputs // kernel.groups, kernel.weight[0].numel()),)

    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        (rank,) = ranks
        made = shape_of(kernel.groups * rank, *kernel.weight.shape[1:])
        return kernel.with_weight(made), kernel.pointwise(shape_of(kernel.outputs, rank, 1, 1))

    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        values, axes = principal_axes(known.output_moments(kernel.weight))
        (full,) = self.full_ranks(kernel)

        def weights(ranks: Ranks) -> tuple[torch.Tensor, ...]:
            kept = axes[:, : ranks[0]]
            return times(kernel.weight, kept.T, 0), kept

        return Decomposition((values[:full],), weights)
