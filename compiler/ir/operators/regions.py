"""Regions of interest: cells of boxes, sampled in one of several feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lvc.compiler.ir.operators.library import operator, operators_of


@operator(
    "roi_align(Tensor[] levels, Tensor rois, Tensor level, float[] scales, int[] cells, int samples, bool aligned)"
    " -> Tensor"
)
def roi_align(
    levels: Sequence[torch.Tensor],
    rois: torch.Tensor,
    level: torch.Tensor,
    scales: Sequence[float],
    cells: Sequence[int],
    samples: int,
    aligned: bool,
) -> torch.Tensor:
    """The mean of bilinear samples in each cell of each region, ``[k, c, cells[0], cells[1]]``.

    ``levels`` are feature maps ``[n, c, h, w]``, ``rois [k, 5]`` image, x1, y1, x2, y2, of which ``level i64[k]`` says
    in which map each lies (the last, if there is none of that number), and ``scales`` how many pixels of a map one of
    the coordinates is. ``samples`` along each side of a cell; 0 for as many as the cell is pixels long, rounded up.
    Unless ``aligned``, pixels have no extent, and a region is at least one long. A sample counts as zero where it lies
    more than a pixel outside of the map (He et al., Mask R-CNN, section 3; arithmetic as torchvision has it).
    """
    maps = levels[0]
    if any(x.shape[:2] != maps.shape[:2] or x.dtype != maps.dtype or x.ndim != 4 for x in levels):
        raise TypeError("the levels of a pyramid have images, channels and an element type in common")
    if len(levels) != len(scales) or len(cells) != 2 or samples < 0 or not maps.is_floating_point():
        raise TypeError(f"{len(scales)} scales, {len(cells)} numbers of cells, {samples} samples of {maps.dtype}")
    if rois.ndim != 2 or rois.shape[1] != 5 or level.shape != rois.shape[:1] or level.dtype != torch.int64:
        raise TypeError(f"{tuple(rois.shape)} are no regions at levels {tuple(level.shape)} of {level.dtype}")
    result = maps.new_zeros((len(rois), maps.shape[1], *cells))
    if result.is_meta or not result.numel():
        return result
    for k, number in enumerate(level.tolist()):
        which = number if 0 <= number < len(levels) else len(levels) - 1
        x, box = levels[which], rois[k, 1:].to(maps.dtype) * scales[which] - (0.5 if aligned else 0.0)
        image = x[min(max(int(rois[k, 0]), 0), len(x) - 1)]
        result[k] = _sampled(image, box, cells, samples, 0.0 if aligned else 1.0)
    return result


def _sampled(image: torch.Tensor, box: torch.Tensor, cells: Sequence[int], samples: int, least: float) -> torch.Tensor:
    """The cells of one region: rows are weighted first, then columns, then what is outside is left out."""
    counts, inside = [], []
    for axis in (1, 2):
        start, end = box[2 - axis], box[4 - axis]
        length = (end - start).clamp(min=least) if least else end - start
        size = length / cells[axis - 1]
        count = samples or max(0, int(torch.nan_to_num(size, 0.0).ceil()))
        cell, sample = torch.arange(cells[axis - 1]).reshape(-1, 1), torch.arange(count)
        at = (start + cell * size + (sample + 0.5) * size / max(count, 1)).reshape(-1)
        last = image.shape[axis] - 1
        inside.append((at >= -1) & (at <= last + 1))
        at = torch.nan_to_num(at, 0.0).clamp(0, last)
        first = at.floor().to(torch.int64)
        rest = (at - first).reshape(-1, 1) if axis == 1 else at - first
        image = image.index_select(axis, first) * (1 - rest) + (
            image.index_select(axis, (first + 1).clamp(max=last)) * rest
        )
        counts.append(count)
    image = torch.where(inside[0].reshape(-1, 1) & inside[1], image, torch.zeros_like(image))
    shaped = image.reshape(len(image), cells[0], counts[0], cells[1], counts[1])
    return shaped.sum((2, 4)) / max(counts[0] * counts[1], 1)


OPERATORS = operators_of(__name__)
