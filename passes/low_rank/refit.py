"""The last factor of a layer, fitted by least squares to what the layer gives on data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from lvc.passes.fitting.moments import Moments, solve
from lvc.passes.low_rank.kernel import Kernel, run

MOST_COLUMNS = 1152
"""Wider factors are not fitted when options are weighed, for it would take too long for so many."""

_ROWS, _ROWS_A_COLUMN = 2048, 4


def refit(
    kernels: Sequence[Kernel], images: torch.Tensor, wanted: torch.Tensor
) -> tuple[tuple[Kernel, ...], torch.Tensor]:
    """Return factors whose last gives best what is wanted, and the bias behind them, ``f64[out]``.

    Where it cannot be fitted, or the places are so few that it would learn them by heart, the factors stay, and the
    bias makes the means of their result right.
    """
    *first, last = kernels
    columns = last.weight[0].numel()
    is_known = wanted.numel() // last.outputs >= _ROWS_A_COLUMN * columns
    if last.is_transposed or columns > MOST_COLUMNS or not is_known:
        given = run(kernels, images)
        return tuple(kernels), (wanted - given).double().mean((0, 2, 3))
    rows, goals = _rows(last, run(first, images)), wanted.movedim(1, -1).flatten(0, -2)
    at = _drawn(len(rows), max(_ROWS, _ROWS_A_COLUMN * columns))
    x, y = _in_groups(rows[at], last.groups), _in_groups(goals[at], last.groups)
    moments = Moments.empty(x.shape[-1], y.shape[-1], last.groups)
    moments.add(x, y)
    weight, bias = solve(moments, last.weight.reshape(last.groups, y.shape[-1], x.shape[-1]))
    return (*first, replace(last, weight=weight.reshape(last.weight.shape))), bias.flatten()


def _in_groups(rows: torch.Tensor, groups: int) -> torch.Tensor:
    """Rows ``[rows, columns]`` by groups of columns, ``[groups, rows, columns of a group]``."""
    return torch.stack(rows.chunk(groups, 1))


def _rows(kernel: Kernel, images: torch.Tensor) -> torch.Tensor:
    """What the weights multiply at each place of the result, ``[rows, in * window]``, in order of the result's."""
    if kernel.window == (1, 1) and kernel.stride == (1, 1):
        return images.movedim(1, -1).flatten(0, -2)
    patches = functional.unfold(images, kernel.window, kernel.dilation, kernel.padding, kernel.stride)
    return patches.transpose(1, 2).flatten(0, 1)


def _drawn(count: int, most: int) -> torch.Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]
