"""Values between the pixels of a feature map, at places that are computed: regions of interest, deformed windows, and
volumes that are sampled.

All of them gather rows of a table, with the places of pixels down and channels across, by numbers that are computed,
and add up what is gathered by weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

from lvc.compiler.ir.operators import regions
from lvc.compiler.load.normalise.builder import Builder, Operand, Result, Rule, Unsupported
from lvc.compiler.load.normalise.composite import composite

aten = torch.ops.aten

_BILINEAR, _NEAREST, _BICUBIC = range(3)
_ZEROS, _BORDER, _REFLECTION = range(3)


@dataclass(frozen=True)
class Taps:
    """For places along one axis the pixels that are read there, their weights, and which of them there are."""

    numbers: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    inside: tuple[Tensor, ...]


def linear_taps(at: Tensor, size: int) -> Taps:
    """The two pixels around a place, each with its nearness; those outside of the axis do not count."""
    first = at.floor()
    rest = at - first
    pixels = (first, first + 1)
    return Taps(
        tuple(pixel.clamp(0, size - 1).to(torch.int64) for pixel in pixels),
        (1 - rest, rest),
        tuple((pixel >= 0) & (pixel <= size - 1) for pixel in pixels),
    )


def nearest_tap(at: Tensor, size: int) -> Taps:
    pixel = at.round()
    inside = (pixel >= 0) & (pixel <= size - 1)
    return Taps((pixel.clamp(0, size - 1).to(torch.int64),), (torch.ones_like(at),), (inside,))


def gathered(rows: Tensor, base: Tensor | int, strides: Sequence[int], axes: Sequence[Taps]) -> list[Tensor]:
    """Each tap of each place, weighted: ``rows[base + pixel numbers]``, zero outside; the places broadcast together."""
    found = []
    for taps in product(*(range(len(axis.numbers)) for axis in axes)):
        number: Tensor | int = base
        for axis, tap, stride in zip(axes, taps, strides, strict=True):
            number = number + axis.numbers[tap] * stride
        assert isinstance(number, Tensor)
        shape = number.shape
        weight = reduce(torch.mul, [axis.weights[tap] for axis, tap in zip(axes, taps, strict=True)])
        inside = reduce(torch.logical_and, [axis.inside[tap] for axis, tap in zip(axes, taps, strict=True)])
        picked = rows.index_select(0, number.reshape(-1)).reshape(*shape, rows.shape[1])
        weighted = picked * weight.expand(shape).unsqueeze(-1)
        found.append(torch.where(inside.expand(shape).unsqueeze(-1), weighted, torch.zeros_like(weighted)))
    return found


def table(x: Tensor) -> Tensor:
    """``(N, C, ...)`` as rows of channels."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def grid_sampler_3d(x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """A volume at places between -1 and 1; the last dimension of places has x before y before z."""
    n, _, *sizes = x.shape
    axes = []
    for axis, size in enumerate(sizes):
        at = _padded(_in_pixels(grid[..., 2 - axis], size, align_corners), size, padding_mode, align_corners)
        axes.append((linear_taps if interpolation_mode == _BILINEAR else nearest_tap)(at, size))
    _, height, width = sizes
    images = torch.arange(n).reshape(n, 1, 1, 1) * (sizes[0] * height * width)
    return sum(gathered(table(x), images, (height * width, width, 1), axes)).movedim(-1, 1)  # type: ignore[union-attr]


def _in_pixels(place: Tensor, size: int, align_corners: bool) -> Tensor:
    return (place + 1) * ((size - 1) / 2) if align_corners else ((place + 1) * size - 1) / 2


def _padded(at: Tensor, size: int, padding: int, align_corners: bool) -> Tensor:
    if padding == _ZEROS:
        return at
    if padding == _REFLECTION:
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        if not span:
            return torch.zeros_like(at)
        away = (at - low).abs()
        rest = away - (away / (2 * span)).floor() * (2 * span)
        at = torch.minimum(rest, 2 * span - rest) + low
    return at.clamp(0, size - 1)


@dataclass(frozen=True)
class Cells:
    """The places of samples in the cells of regions: ``(K, rows, samples)`` and ``(K, columns, samples)``."""

    down: Tensor
    across: Tensor

    @classmethod
    def of(
        cls, boxes: Tensor, scale: float, cells: tuple[int, int], samples: int, *, aligned: bool, least: float
    ) -> Cells:
        """Boxes are x1, y1, x2, y2; ``least`` is how long a side is at least."""
        if samples <= 0:
            raise Unsupported("it takes as many samples as each region is large: give it a sampling_ratio")
        boxes = boxes * scale - (0.5 if aligned else 0.0)
        found = []
        for start, end, count in ((boxes[:, 1], boxes[:, 3], cells[0]), (boxes[:, 0], boxes[:, 2], cells[1])):
            length = (end - start).clamp(min=least) if least else end - start
            size = (length / count).reshape(-1, 1, 1)
            cell, sample = torch.arange(count).reshape(1, -1, 1), torch.arange(samples).reshape(1, 1, -1)
            found.append(start.reshape(-1, 1, 1) + cell * size + (sample + 0.5) * size / samples)
        return cls(*found)

    def taps(self, size: tuple[int, int]) -> tuple[Taps, Taps]:
        """Pixels down, as ``(K, rows, samples, 1, 1)``, and across, as ``(K, 1, 1, columns, samples)``."""
        down = _border_taps(self.down, size[0])
        across = _border_taps(self.across, size[1])
        return _shaped(down, lambda x: x[:, :, :, None, None]), _shaped(across, lambda x: x[:, None, None, :, :])


def _border_taps(at: Tensor, size: int) -> Taps:
    """Up to a pixel outside the outermost pixel counts; what lies further away does not."""
    inside = (at >= -1) & (at <= size)
    taps = linear_taps(at.clamp(0, size - 1), size)
    return Taps(taps.numbers, taps.weights, (inside, inside & taps.inside[1]))


def _shaped(taps: Taps, view: object) -> Taps:
    assert callable(view)
    return Taps(*(tuple(map(view, part)) for part in (taps.numbers, taps.weights, taps.inside)))


def roi_align(
    b: Builder,
    x: Operand,
    rois: Operand,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Result:
    """Regions of one feature map; ``rois`` are image, x1, y1, x2, y2."""
    only = b.constant(torch.zeros(rois.shape[0], dtype=torch.int64))
    cells, samples = [pooled_height, pooled_width], max(0, sampling_ratio)
    return b.call(regions.roi_align, [x], rois, only, [spatial_scale], cells, samples, aligned)


def roi_align_max(
    x: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The largest weighted pixel in each cell, as ONNX has it."""
    samples = _region_samples(x, rois, spatial_scale, (pooled_height, pooled_width), sampling_ratio, aligned)
    return reduce(torch.maximum, [part.amax((2, 4)) for part in samples]).permute(0, 3, 1, 2)


def _region_samples(
    x: Tensor, rois: Tensor, scale: float, cells: tuple[int, int], samples: int, aligned: bool
) -> list[Tensor]:
    """Weighted pixels, ``(K, rows, samples, columns, samples, channels)`` for each of four taps."""
    height, width = x.shape[2:]
    places = Cells.of(rois[:, 1:], scale, cells, samples, aligned=aligned, least=0.0 if aligned else 1.0)
    images = (rois[:, 0].to(torch.int64) * (height * width)).reshape(-1, 1, 1, 1, 1)
    return gathered(table(x), images, (width, 1), places.taps((height, width)))


def ps_roi_align(
    x: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> tuple[Tensor]:
    """Each cell of a region reads channels of its own."""
    _, channels, height, width = x.shape
    cells = (pooled_height, pooled_width)
    places = Cells.of(rois[:, 1:], spatial_scale, cells, sampling_ratio, aligned=True, least=0.0)
    own = torch.arange(channels).reshape(1, -1, pooled_height, 1, pooled_width, 1)
    image = rois[:, 0].to(torch.int64).reshape(-1, 1, 1, 1, 1, 1)
    taps = [_shaped(axis, lambda part: part.unsqueeze(1)) for axis in places.taps((height, width))]
    samples = gathered(x.reshape(-1, 1), (image * channels + own) * (height * width), (width, 1), taps)
    total = sum(part.squeeze(-1).sum((3, 5)) for part in samples)
    assert isinstance(total, Tensor)
    return (total / sampling_ratio**2,)


def deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """A convolution whose taps are moved by ``offset (N, groups of offsets * taps * 2, ..)``, y before x."""
    n, channels, height, width = x.shape
    taps_h, taps_w = weight.shape[2:]
    taps, (rows, columns) = taps_h * taps_w, offset.shape[2:]
    moved = offset.reshape(n, offset_groups, taps, 2, rows, columns)
    down = torch.arange(taps_h).repeat_interleave(taps_w) * dilation_h - pad_h
    across = torch.arange(taps_w).repeat(taps_h) * dilation_w - pad_w
    y = (torch.arange(rows).reshape(-1, 1) * stride_h + down.reshape(-1, 1, 1)) + moved[:, :, :, 0]
    at = (torch.arange(columns) * stride_w + across.reshape(-1, 1, 1)) + moved[:, :, :, 1]
    axes = (linear_taps(y, height), linear_taps(at, width))
    pictures = x.reshape(n * offset_groups, channels // offset_groups, height, width)
    base = torch.arange(n * offset_groups).reshape(n, offset_groups, 1, 1, 1) * (height * width)
    values = sum(gathered(table(pictures), base, (width, 1), axes))
    assert isinstance(values, Tensor)
    if use_mask and mask is not None:
        values = values * mask.reshape(n, offset_groups, taps, rows, columns, 1)
    values = values.permute(0, 1, 5, 2, 3, 4).reshape(n, channels * taps, rows, columns)
    flat = weight.reshape(weight.shape[0], -1, 1, 1)
    return F.conv2d(values, flat, bias, groups=groups)


def _grid_sampler_3d(*arguments: object) -> Tensor:
    if arguments[2] == _BICUBIC:
        raise Unsupported("it samples by cubes in three dimensions")
    return grid_sampler_3d(*arguments)  # type: ignore[arg-type]


SAMPLED: dict[OpOverload, Rule] = {aten.grid_sampler_3d.default: composite(_grid_sampler_3d)}

REGIONS: dict[str, Rule] = {
    "torchvision.roi_align.default": roi_align,
    "torchvision.ps_roi_align.default": composite(ps_roi_align),
    "torchvision.deform_conv2d.default": composite(deform_conv2d),
}
"""Operators of torchvision, by name: they exist once torchvision is imported."""
