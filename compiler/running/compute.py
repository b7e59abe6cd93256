"""Calls of a graph as they are computed over data.

Where no gradient is wanted, fake quantisation is ours: PyTorch's writes a mask for the gradient and rounds value by
value, and takes as long as the layers. This one sweeps over memory a few times with the same float32 arithmetic, so
the numbers are the same::

    (clamp(round(x * (1 / scale)) + zero_point, low, high) - zero_point) * scale
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from lvc.compiler.ir.batching.batching import Calls
from lvc.compiler.ir.dialect import aten

Values = Mapping[Node, torch.Tensor]


def round_per_tensor(values: torch.Tensor, scale: float, zero_point: int, *bounds: int) -> torch.Tensor:
    inverse, low, high = float(torch.tensor(scale).reciprocal()), *(bound - zero_point for bound in bounds)
    return values.mul(inverse).round_().clamp_(low, high).mul_(scale)


def round_per_channel(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int, *bounds: int
) -> torch.Tensor:
    shape = [-1 if dim == axis else 1 for dim in range(values.ndim)]
    step, zero = scale.reshape(shape), zero_point.reshape(shape).to(scale.dtype)
    return values.mul(step.reciprocal()).round_().add_(zero).clamp_(*bounds).sub_(zero).mul_(step)


_OURS: Mapping[object, Callable[..., torch.Tensor]] = {
    aten.fake_quantize_per_tensor_affine.default: round_per_tensor,
    aten.fake_quantize_per_channel_affine.default: round_per_channel,
}


def compute(node: Node, values: Values, calls: Calls | None = None, *, differentiable: bool = False) -> torch.Tensor:
    """Return the result of a call for those values of its operands, which hold as many images as ``calls`` is for."""
    ours = {} if differentiable else _OURS
    if calls is not None:
        return calls.compute(node, values, ours)
    args: tuple[Any, ...] = map_arg(node.args, values.__getitem__)
    kwargs: dict[str, Any] = map_arg(node.kwargs, values.__getitem__)
    result: torch.Tensor = ours.get(node.target, node.target)(*args, **kwargs)  # type: ignore[operator]
    return result
