"""Operators outside the dialect that importers bring to it: each as the PyTorch code of its call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch

from lvc.compiler.ir.dialect import BY_NAME, Family

_STATES = "[x.new_zeros(layers * (1 + both), x.shape[1 - first], weights[1].shape[1])]"
_RECURRENCE = "weights, biased, layers, 0.0, False, both, first)[result]"
_RECURRENT = "x, weights, biased, layers, both, first, result"

_BOXES = "torch.cat([images[:, None].to(x.dtype), corners], 1)"

ORDERS: dict[str, str] = {
    "sort": "lambda x, dim, descending: torch.sort(x, dim=dim, descending=descending, stable=True)[0]",
    "argsort": "lambda x, dim, descending: torch.argsort(x, dim=dim, descending=descending, stable=True)",
    "topk": "lambda x, k, dim, largest: torch.topk(x, k, dim, largest)[0]",
    "gathered_topk": "lambda x, k, dim, largest: x.gather(dim, torch.topk(x, k, dim, largest)[1])",
    "kthvalue": "lambda x, k, dim, keepdim: torch.kthvalue(x, k, dim, keepdim)[0]",
    "take_along_dim": "lambda x, index, dim: torch.take_along_dim(x, index, dim)",
    "index": "lambda x, indices: torch.ops.aten.index.Tensor(x, indices)",
    "unfold": "lambda x, dim, size, step: x.unfold(dim, size, step)",
    "scatter": "lambda x, dim, index, updates: x.scatter(dim, index, updates)",
    "scatter_value": "lambda x, dim, index, value: x.scatter(dim, index, value)",
    "index_copy": "lambda x, dim, index, source: x.index_copy(dim, index, source)",
    "index_put": "lambda x, indices, values: torch.ops.aten.index_put.default(x, indices, values, False)",
}
"""Those that move elements. PyTorch leaves open which of equal ones are the largest few: their places are not given."""

SUMS: dict[str, str] = {
    "scatter_add": "lambda x, dim, index, updates: x.scatter_add(dim, index, updates)",
    "scatter_with": "lambda x, dim, index, updates, reduce: x.scatter(dim, index, updates, reduce=reduce)",
    "scatter_reduce": "lambda x, dim, index, updates, reduce: x.scatter_reduce(dim, index, updates, reduce)",
    "index_add": "lambda x, dim, index, source, alpha: x.index_add(dim, index, source, alpha=alpha)",
    "accumulated": "lambda x, indices, values: torch.ops.aten.index_put.default(x, indices, values, True)",
}

CONTRACTIONS: dict[str, str] = {
    "conv3d": "lambda x, weight, *rest: F.conv3d(x, weight, *rest)",
    "conv_transpose3d": "lambda x, weight, *rest: F.conv_transpose3d(x, weight, *rest)",
    "deform_conv2d": "lambda x, weight, offset, *rest: torchvision.ops.deform_conv2d(x, offset, weight, *rest)",
    "lstm": f"lambda {_RECURRENT}: torch.lstm(x, {_STATES} * 2, {_RECURRENCE}",
    "gru": f"lambda {_RECURRENT}: torch.gru(x, {_STATES}[0], {_RECURRENCE}",
    "rnn_tanh": f"lambda {_RECURRENT}: torch.rnn_tanh(x, {_STATES}[0], {_RECURRENCE}",
    "rnn_relu": f"lambda {_RECURRENT}: torch.rnn_relu(x, {_STATES}[0], {_RECURRENCE}",
}

POOLS: dict[str, str] = {
    "max_pool3d": "lambda x, *rest: F.max_pool3d(x, *rest)",
    "avg_pool3d": "lambda x, *rest: F.avg_pool3d(x, *rest)",
    "adaptive_avg_pool3d": "lambda x, size: F.adaptive_avg_pool3d(x, size)",
}

SAMPLES: dict[str, str] = {
    "roi_align": f"lambda x, images, corners, *rest: torchvision.ops.roi_align(x, {_BOXES}, *rest)",
    "ps_roi_align": f"lambda x, images, corners, *rest: torchvision.ops.ps_roi_align(x, {_BOXES}, *rest)",
    "grid_sampler_3d": "lambda x, grid, *rest: torch.grid_sampler_3d(x, grid, *rest)",
    "antialiased": "lambda x, size, scale, mode: F.interpolate(x, size, scale, mode, False, antialias=True)",
    "nearest_exact": "lambda x, size, scale: F.interpolate(x, size, scale, 'nearest-exact')",
    "trilinear": "lambda x, size, scale, corners: F.interpolate(x, size, scale, 'trilinear', corners)",
    "nearest_volume": "lambda x, size, scale: F.interpolate(x, size, scale, 'nearest')",
}

_FAMILIES = {
    Family.MOVEMENT: ORDERS,
    Family.REDUCTION: SUMS,
    Family.CONTRACTION: CONTRACTIONS,
    Family.POOLING: POOLS,
    Family.RESAMPLING: SAMPLES,
}
CALLS: dict[str, str] = {op: text for texts in _FAMILIES.values() for op, text in texts.items()}
assert not BY_NAME.keys() & CALLS.keys(), "an operator of the dialect is no composite"

EXACT = frozenset(ORDERS) | {"max_pool3d", "nearest_exact", "nearest_volume"}
"""Those that round nothing."""


def family(op: str) -> Family:
    """What an operator does to its operands, whether it is one of the dialect or not."""
    return BY_NAME[op].family if op in BY_NAME else next(key for key, texts in _FAMILIES.items() if op in texts)


@cache
def function(op: str) -> Callable[..., torch.Tensor]:
    """What computes a call."""
    if op in BY_NAME:
        return BY_NAME[op].overload
    import torchvision

    made = eval(CALLS[op], {"torch": torch, "F": torch.nn.functional, "torchvision": torchvision})
    return cast("Callable[..., torch.Tensor]", made)


def named(op: str, args: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a composite by name; those without one are left out."""
    return dict(inspect.signature(function(op)).bind(*args).arguments)
