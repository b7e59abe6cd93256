"""Rounding with gradients: to the value straight through, to scale and offset as Esser et al. and Bhalgat et al. say.

With ``v = (x - offset) / scale`` and ``q`` the nearest integer to it in ``[low, high]``, ``y = scale * q + offset`` has
the derivatives::

            inside          outside
    x       1               0
    scale   q - v           the bound
    offset  0               1

The numbers are those of ATen's fake quantisation, to the bit, for an offset of ``-zero * scale`` with an integer zero.

Source: Esser et al. 2020, "Learned step size quantization", section 2.1; Bhalgat et al. 2020, "LSQ+: improving low-bit
quantization through learnable offsets and better initialization", section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.operators.codebook import nearest


class _Limit(Function):
    """torch's own clamp has no gradient at its bounds, where most numbers of few bits are."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        return torch.where((x >= low) & (x <= high), gradient, 0.0), None, None


class _ScaleGradient(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.factor, None


class _OneScale(Function):
    """Sweeps over memory a few times; what it keeps for the gradient, the layers around it keep anyway."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch gives arguments by place
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        offset: torch.Tensor | None,
        zero: int,
        bounds: tuple[int, int],
    ) -> torch.Tensor:
        step, (low, high) = float(scale), bounds
        y = x.mul(float(scale.detach().reciprocal())).round_().clamp_(low - zero, high - zero).mul_(step)
        ctx.save_for_backward(x, y)
        ctx.step, ctx.steps, ctx.has_offset = step, (low - zero, high - zero), offset is not None
        ctx.offset = -zero * step
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, y = ctx.saved_tensors
        low, high = ctx.steps
        passed = aten.hardtanh_backward.default(gradient, x, (low - 0.5) * ctx.step, (high + 0.5) * ctx.step)
        if not any(ctx.needs_input_grad[1:3]):
            return passed, None, None, None, None
        # inside the gradient of the scale is (y - x) / scale, outside (y - offset) / scale
        total = _dot(gradient, y, y) - _dot(passed, x, y)
        if not ctx.has_offset:
            return passed, (total / ctx.step).reshape(1), None, None, None
        outside = gradient.sum() - passed.sum()
        scale = (total - outside * ctx.offset) / ctx.step
        return passed, scale.reshape(1), outside.reshape(1), None, None


def _dot(a: torch.Tensor, b: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The sum of products, in the order in which ``like`` lies in memory."""
    strides = like.stride()
    order = sorted(range(like.ndim), key=lambda dim: (-strides[dim], dim))
    return torch.dot(a.permute(order).reshape(-1), b.permute(order).reshape(-1))


def scale_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """The same values; their gradient is multiplied by a factor."""
    result: torch.Tensor = _ScaleGradient.apply(x, factor)
    return result


def straight_round(x: torch.Tensor) -> torch.Tensor:
    """The nearest integers; the gradient passes as if nothing was rounded."""
    return x + (x.round() - x).detach()


def limit(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Values limited to a range; those at its ends are within it, and have a gradient."""
    result: torch.Tensor = _Limit.apply(x, low, high)
    return result


def straight_power_of_two(x: torch.Tensor) -> torch.Tensor:
    """The nearest powers of two by their exponent; the gradient passes as if nothing was rounded.

    Source: Jain et al. 2020, "Trained quantization thresholds for accurate and efficient fixed-point inference".
    """
    powers = torch.exp2(x.detach().double().log2().round()).float()
    return x + (powers - x).detach()


def integer_zero(scale: torch.Tensor, offset: torch.Tensor, bounds: tuple[int, int]) -> torch.Tensor:
    """The integer that stands for zero, or for a number near it, if the integer 0 stands for the offset; differentiable
    where it is not limited."""
    return limit(straight_round(-offset / scale), *bounds)


def one_scale(
    x: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None, zero: int, bounds: tuple[int, int]
) -> torch.Tensor:
    """Round values of any shape by one scale ``f32[1]``; ``zero`` stands for zero.

    With an ``offset`` ``f32[1]``, of which ``zero`` was made, that has a gradient, and is what stays when the scale
    changes; without one ``zero`` stays.
    """
    result: torch.Tensor = _OneScale.apply(x, scale, offset, zero, bounds)
    return result


def scales_along(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, axis: int, bounds: tuple[int, int]
) -> torch.Tensor:
    """Round values by a scale and a zero ``f32[n]`` for each place of an axis."""
    shape = [-1 if dim == axis % x.ndim else 1 for dim in range(x.ndim)]
    step, nought = scale.reshape(shape), zero.reshape(shape)
    steps = straight_round(x * step.reciprocal()) + nought
    return (limit(steps, *bounds) - nought) * step


def by_codebook(x: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round weights ``f32[O,...]`` to a codebook ``f32[n]`` times the scale of their row, ``f32[rows]``: what
    `lvc::fake_quantize_codebook` gives, where scales have the gradient that they have for integers."""
    rows, step = x.reshape(len(scale), -1), scale.reshape(-1, 1)
    places = rows / step
    found = values[nearest(rows.detach(), values.detach(), scale.detach())]
    ends = values[:2].tolist(), values[-2:].tolist()
    within = limit(places, 1.5 * ends[0][0] - 0.5 * ends[0][1], 1.5 * ends[1][1] - 0.5 * ends[1][0])
    return ((found + (within - within.detach())) * step).reshape(x.shape)
