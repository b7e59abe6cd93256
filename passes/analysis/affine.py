"""Normalisation in evaluation mode is an affine map per channel; how one moves into the weights beside it.

All arithmetic is in float64. ``layer`` is a call of one of `lvc.compiler.ir.layers.LAYERS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import arguments, spec, tensor
from lvc.compiler.ir.layers import contraction, group_count


@dataclass(frozen=True)
class Affine:
    """``y = scale * x + shift`` for each channel; both ``f64[channels]``."""

    scale: torch.Tensor
    shift: torch.Tensor


def batch_norm_affine(module: GraphModule, node: Node) -> Affine | str:
    """Return the affine map of a batch normalisation, or why it has none that is fixed."""
    args = arguments(node)
    if args["training"]:
        return "it runs in training mode, so its statistics are those of the batch"
    mean, var = tensor(module, args["running_mean"]), tensor(module, args["running_var"])
    if mean is None or var is None:
        return "its statistics are computed in the graph"
    gamma, beta = tensor(module, args["weight"]), tensor(module, args["bias"])
    if (gamma is None and args["weight"] is not None) or (beta is None and args["bias"] is not None):
        return "its scale or shift is computed in the graph"
    scale = (var.double() + args["eps"]).rsqrt()
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    shift = shift if beta is None else shift + beta.double()
    return Affine(scale.detach(), shift.detach())


def scale_outputs(layer: Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the layer's weight with output channel ``o`` multiplied by ``scale[o]``."""
    return _scaled(layer, weight.double(), contraction(layer).made, scale)


def scale_inputs(layer: Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the layer's weight with input channel ``i`` multiplied by ``scale[i]``."""
    return _scaled(layer, weight.double(), contraction(layer).read, scale)


def _scaled(layer: Node, weight: torch.Tensor, axis: int, scale: torch.Tensor) -> torch.Tensor:
    """Multiply along an axis of channels; where that has those of one group, each group has scales of its own."""
    if axis != contraction(layer).grouped:
        return weight * scale.reshape(*[1] * axis, -1, *[1] * (weight.ndim - axis - 1))
    groups = group_count(layer)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def shift_response(layer: Node, weight: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return what a convolution or linear layer answers to an input that is ``shift[i]`` everywhere; ``f64[out]``."""
    shifted = scale_inputs(layer, weight, shift)
    return shifted.sum(dim=tuple(range(1, shifted.ndim)))


def channels_out(layer: Node) -> int:
    """Return the number of output channels of a layer."""
    return spec(layer).shape[contraction(layer).axis]
