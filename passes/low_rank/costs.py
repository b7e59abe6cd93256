"""The size of kernels in the place of a layer, and the least that budgets can bring layers down to."""

from __future__ import annotations

from collections.abc import Sequence

from lvc.passes.budget.costs import Size
from lvc.passes.low_rank.kernel import Kernel, macs, parameters
from lvc.passes.low_rank.layer import Layer


def size_with(layer: Layer, kernels: Sequence[Kernel]) -> Size:
    """The size of kernels in the place of a layer."""
    count = parameters(kernels) + _new_biases(layer, kernels)
    return Size(layer.count * macs(kernels, layer.size), count, count * layer.itemsize)


def size_today(layer: Layer) -> Size:
    return size_with(layer, [layer.kernel])


def _new_biases(layer: Layer, kernels: Sequence[Kernel]) -> int:
    """The numbers of the bias that factors get when they are fitted, where the layer has none of its own."""
    return layer.kernel.outputs if len(kernels) > 1 and not layer.has_bias else 0
