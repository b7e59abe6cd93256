"""A layer by itself, apart from any graph: what it multiplies, and how its window slides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

Pair = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """A convolution over images, ``f64[out, in/groups, height, width]``; a linear layer is one with a window of 1x1.

    A transposed convolution has its weight in the same order, and ``output_padding``. On the device ``meta`` a weight
    has a shape alone, which is enough to count with.
    """

    weight: torch.Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    output_padding: Pair | None = None

    @property
    def is_transposed(self) -> bool:
        return self.output_padding is not None

    @property
    def outputs(self) -> int:
        """Output channels of all groups."""
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels of all groups."""
        return self.weight.shape[1] * self.groups

    @property
    def window(self) -> Pair:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def parameters(self) -> int:
        return self.weight.numel()

    def output_size(self, size: Pair) -> Pair:
        """Height and width of what it makes of an image of such a size."""
        return self._extent(size, 0), self._extent(size, 1)

    def _extent(self, size: Pair, axis: int) -> int:
        reach = self.dilation[axis] * (self.window[axis] - 1) + 1
        if self.output_padding is None:
            return (size[axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1
        return (size[axis] - 1) * self.stride[axis] - 2 * self.padding[axis] + reach + self.output_padding[axis]

    def macs(self, size: Pair) -> int:
        """Multiply-accumulates for one image of such a size, as `lvc.compiler.measure.counts` has them."""
        return self.parameters * math.prod(size if self.is_transposed else self.output_size(size))

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """What it makes of images ``[batch, in, height, width]``, in their type."""
        weight = self.stored_weight().to(images.dtype)
        if self.output_padding is None:
            return functional.conv2d(images, weight, None, self.stride, self.padding, self.dilation, self.groups)
        return functional.conv_transpose2d(
            images, weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def outline(self) -> Kernel:
        """The same kernel, its weight being a shape alone."""
        return replace(self, weight=self.weight.to("meta"))

    def stored_weight(self) -> torch.Tensor:
        """The weight in the order of the operator's: a transposed convolution counts its input channels first."""
        if not self.is_transposed:
            return self.weight
        made, read = self.outputs // self.groups, self.weight.shape[1]
        parts = self.weight.reshape(self.groups, made, read, *self.window).transpose(1, 2)
        return parts.reshape(self.groups * read, made, *self.window)

    def pointwise(self, weight: torch.Tensor) -> Kernel:
        """A 1x1 convolution in as many groups."""
        return Kernel(weight, groups=self.groups)

    def with_weight(self, weight: torch.Tensor, groups: int | None = None) -> Kernel:
        """The same window, made of other channels."""
        return replace(self, weight=weight, groups=self.groups if groups is None else groups)

    def everywhere(self) -> Kernel:
        """The same window at every place that has a whole one, its points next to each other."""
        extra = None if self.output_padding is None else (0, 0)
        return Kernel(self.weight, groups=self.groups, output_padding=extra)

    def along(self, axis: int, weight: torch.Tensor, groups: int | None = None) -> Kernel:
        """What slides as this window does along one axis, and not at all along the other."""

        def only(pair: Pair, neutral: int) -> Pair:
            return (pair[0], neutral) if axis == 0 else (neutral, pair[1])

        return Kernel(
            weight,
            only(self.stride, 1),
            only(self.padding, 0),
            only(self.dilation, 1),
            self.groups if groups is None else groups,
            None if self.output_padding is None else only(self.output_padding, 0),
        )

    def split(self) -> Iterator[Kernel]:
        """Each group of channels as a kernel of its own."""
        for part in self.weight.chunk(self.groups):
            yield replace(self, weight=part, groups=1)


def run(kernels: Sequence[Kernel], images: torch.Tensor) -> torch.Tensor:
    """What kernels make of images one after the other."""
    for kernel in kernels:
        images = kernel.apply(images)
    return images


def macs(kernels: Sequence[Kernel], size: Pair) -> int:
    """Multiply-accumulates of kernels one after the other, for one image of such a size."""
    total = 0
    for kernel in kernels:
        total += kernel.macs(size)
        size = kernel.output_size(size)
    return total


def parameters(kernels: Sequence[Kernel]) -> int:
    return sum(kernel.parameters for kernel in kernels)


def shape_of(*shape: int) -> torch.Tensor:
    """A weight of which only the shape is known."""
    return torch.empty(shape, device="meta")
