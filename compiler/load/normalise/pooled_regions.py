"""The largest pixel in each cell of a region of interest, whatever its size.

A cell of any size is covered by four windows of one size, a power of two in each direction, which may overlap. The
largest pixel of each such window at every place is a row of a table, and the cells read four rows each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lvc.compiler.load.normalise.builder import Rule, Unsupported
from lvc.compiler.load.normalise.composite import composite
from lvc.compiler.load.normalise.regions import table

_MOST_BYTES = 1 << 30


def roi_pool(x: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int) -> Tensor:
    """``x (N, C, H, W)`` in regions ``(K, 5)``, image, x1, y1, x2, y2, whose corners are rounded to pixels; cells that
    have none are zero: ``(K, C, rows, columns)``."""
    n, channels, height, width = x.shape
    powers_h, powers_w = (range(side.bit_length()) for side in (height, width))
    size = len(powers_h) * len(powers_w) * x.numel() * x.element_size()
    if size > _MOST_BYTES:
        raise Unsupported(f"its table of maxima would have {size >> 20} MiB")
    rows = torch.cat([table(part) for part in _maxima(x, len(powers_h), len(powers_w))])
    corners = _rounded(rois[:, 1:] * spatial_scale)
    top, bottom, of_rows = _cells(corners[:, 1], corners[:, 3], pooled_height, height)
    left, right, of_columns = _cells(corners[:, 0], corners[:, 2], pooled_width, width)
    base = (of_rows.unsqueeze(2) * len(powers_w) + of_columns.unsqueeze(1)) * n + rois[:, 0].to(torch.int64).view(
        -1, 1, 1
    )
    found: Tensor | None = None
    for down in (top, bottom - 2**of_rows):
        for across in (left, right - 2**of_columns):
            places = [side.clamp(0, most - 1) for side, most in ((down, height), (across, width))]
            number = (base * height + places[0].unsqueeze(2)) * width + places[1].unsqueeze(1)
            taken = rows.index_select(0, number.reshape(-1))
            found = taken if found is None else torch.maximum(found, taken)
    assert found is not None
    is_filled = (bottom > top).unsqueeze(2) & (right > left).unsqueeze(1)
    found = found.reshape(*is_filled.shape, channels)
    return torch.where(is_filled.unsqueeze(3), found, torch.zeros_like(found)).permute(0, 3, 1, 2)


def _maxima(x: Tensor, powers_h: int, powers_w: int) -> list[Tensor]:
    """The largest element of windows of every power of two, rows before columns, that begin at each place; those that
    would reach beyond the image are zero."""
    found = []
    tall = x
    for power_h in range(powers_h):
        tall = _joined(tall, 2, 1 << (power_h - 1)) if power_h else tall
        wide = tall
        for power_w in range(powers_w):
            wide = _joined(wide, 3, 1 << (power_w - 1)) if power_w else wide
            found.append(F.pad(wide, (0, x.shape[3] - wide.shape[3], 0, x.shape[2] - wide.shape[2])))
    return found


def _joined(x: Tensor, dim: int, step: int) -> Tensor:
    """The larger of two windows that are so far apart."""
    size = x.shape[dim] - step
    return torch.maximum(x.narrow(dim, 0, size), x.narrow(dim, step, size))


def _cells(start: Tensor, end: Tensor, count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where cells begin and end, ``i64[K, count]``, and the largest power of two that is not longer than each."""
    length = (end - start + 1).clamp(min=1).reshape(-1, 1) / count
    cell = torch.arange(count)
    first, last = (
        (edge + start.reshape(-1, 1)).clamp(0, size) for edge in ((cell * length).floor(), ((cell + 1) * length).ceil())
    )
    whole = (last - first).to(torch.int64)
    powers = sum(
        ((whole >= 1 << power).to(torch.int64) for power in range(1, size.bit_length())), torch.zeros_like(whole)
    )
    return first.to(torch.int64), last.to(torch.int64), powers


def _rounded(x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero."""
    size = x.abs()
    whole = size.floor()
    return x.sign() * (whole + (size - whole >= 0.5))


POOLED: dict[str, Rule] = {"torchvision.roi_pool.default": composite(lambda *args: (roi_pool(*args),))}
