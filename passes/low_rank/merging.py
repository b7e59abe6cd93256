"""Two layers, one behind the other with nothing in between, as the one layer that computes the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from lvc.passes.low_rank.kernel import Kernel


def refusal(first: Kernel, second: Kernel, has_bias: bool) -> str | None:
    """Why two kernels are not one; None if they are. ``has_bias`` tells of what is added between them."""
    first, second = _plain(first), _plain(second)
    if any(second.padding) and has_bias:
        return "the second pads with zeros, where the first adds a bias"
    if has_bias and second.is_transposed:
        return "the second is transposed, so that what the first adds counts more in some places than in others"
    has_pointwise = _is_pointwise(first) or _is_pointwise(second)
    if first.is_transposed != second.is_transposed and not has_pointwise:
        return "one of them is transposed, and both have a window"
    for axis in (0, 1):
        if _is_neutral(first, axis) or _is_neutral(second, axis):
            continue
        if first.is_transposed or second.is_transposed:
            return "their windows slide along the same axis"
        if not (_only_strides(second, axis) or _only_strides(first, axis)):
            return "their windows slide along the same axis"
    return None


def _plain(kernel: Kernel) -> Kernel:
    """The same kernel; one that takes each place as it is need not be transposed."""
    return replace(kernel, output_padding=None) if _is_pointwise(kernel) else kernel


def _is_pointwise(kernel: Kernel) -> bool:
    return all(_is_neutral(kernel, axis) for axis in (0, 1))


def _is_neutral(kernel: Kernel, axis: int) -> bool:
    """Whether it takes each place along an axis as it is."""
    moved = kernel.output_padding is not None and kernel.output_padding[axis]
    return kernel.window[axis] == kernel.stride[axis] == 1 and not kernel.padding[axis] and not moved


def _only_strides(kernel: Kernel, axis: int) -> bool:
    """Whether it takes some places along an axis, each as it is."""
    return kernel.window[axis] == 1 and not kernel.padding[axis]


def compose(first: Kernel, second: Kernel) -> Kernel:
    """The kernel of both, in as many groups as they have in common."""
    first, second = _plain(first), _plain(second)
    groups = math.gcd(first.groups, second.groups)
    blocks = zip(_blocks(first, groups), _blocks(second, groups), strict=True)
    parts = [_product(before, after) for before, after in blocks]
    axes = [_axis(first, second, axis) for axis in (0, 1)]
    stride, padding, dilation, extra = (tuple(pair) for pair in zip(*axes, strict=True))
    is_transposed = first.is_transposed or second.is_transposed
    return Kernel(torch.cat(parts), stride, padding, dilation, groups, extra if is_transposed else None)


def _axis(first: Kernel, second: Kernel, axis: int) -> tuple[int, int, int, int]:
    """Stride, padding, dilation and output padding along an axis."""
    if _is_neutral(second, axis) or not _only_strides(first, axis):
        extra = first.output_padding[axis] if first.output_padding else 0
        return first.stride[axis] * second.stride[axis], first.padding[axis], first.dilation[axis], extra
    step, extra = first.stride[axis], second.output_padding[axis] if second.output_padding else 0
    return step * second.stride[axis], step * second.padding[axis], step * second.dilation[axis], extra


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The weight of both, along each axis of whose windows one of them has an extent of 1."""
    weight = torch.einsum("omcd,miab->oiacbd", second, first)
    return weight.flatten(4).flatten(2, 3)


def _blocks(kernel: Kernel, groups: int) -> Iterator[torch.Tensor]:
    """The weights of so many groups, zeros where channels do not meet, ``f64[out, in, height, width]`` each."""
    inside = kernel.groups // groups
    for part in kernel.weight.chunk(groups):
        made, read = part.shape[0] // inside, part.shape[1]
        whole = part.new_zeros(part.shape[0], read * inside, *kernel.window)
        for place, weight in enumerate(part.chunk(inside)):
            whole[place * made : (place + 1) * made, place * read : (place + 1) * read] = weight
        yield whole


def bias_of(second: Kernel, first_bias: torch.Tensor, second_bias: torch.Tensor) -> torch.Tensor:
    """What both add, where the second neither pads nor has windows that are cut off: ``f64[out]``."""
    return (
        second.pointwise(second.weight.sum((2, 3), keepdim=True)).apply(first_bias[None, :, None, None]).flatten()
        + second_bias
    )
