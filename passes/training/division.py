"""What several processes need that train on shares of one batch, so that they do what one does with all of it.

Values of the shares are joined where images meet: in losses and in the statistics of batch normalisations. The
gradient of what is joined flows back into each process's own share alone; every process computes the same loss from
the same values, so that the sum of all gradients is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import Function

from lvc.compiler.pipeline.ranks import Ranks


class _Joined(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.rank, ctx.size = ranks.rank, len(x)
        return ranks.gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient[ctx.rank * ctx.size : (ctx.rank + 1) * ctx.size], None


def joined(x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """The values of all images, of which each process has the same number."""
    if ranks.count == 1:
        return x
    result: torch.Tensor = _Joined.apply(x, ranks)
    return result


@torch.no_grad()
def sum_gradients(parameters: Sequence[torch.nn.Parameter], ranks: Ranks) -> None:
    """Sum the gradients of all processes, as one number after the other: in the same order at every step.

    PyTorch's `DistributedDataParallel` sums them so too, but in buckets whose order changes after its first step, so
    that training which goes on from a checkpoint would round otherwise than training that was not broken off.
    """
    if ranks.count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    total = ranks.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    parts = torch.split(total, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


class _Normalised(Function):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` where mean and variance are those of all processes.

    With ``z`` the normalised values and ``g`` the gradient, both of all images, the gradient of ``x`` is
    ``weight / sqrt(var + eps) * (g - mean(g) - z * mean(g * z))``. PyTorch's operator gives it with the means over
    one's own share; their difference from those over all is then taken off.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch gives arguments by place
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        moments: torch.Tensor,
        eps: float,
        ranks: Ranks,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, moments)
        ctx.eps, ctx.ranks = eps, ranks
        y: torch.Tensor = torch.nn.functional.batch_norm(x, moments[0], moments[1], weight, bias, False, 0.0, eps)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight, moments = ctx.saved_tensors
        mean, inverse = moments[0], (moments[1] + ctx.eps).rsqrt()
        passed, scale, shift = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        sums, count = torch.stack([shift, scale]), x.numel() / x.shape[1]
        means = (ctx.ranks.sum(sums.clone()) / ctx.ranks.count - sums) / count
        slope = inverse if weight is None else inverse * weight
        factor = slope * inverse * means[1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        offset = slope * means[0] - factor * mean
        passed = passed.sub_((x * factor.view(shape)).add_(offset.view(shape)))
        _, by_weight, by_bias, *_ = ctx.needs_input_grad
        return passed, scale if by_weight else None, shift if by_bias else None, None, None, None


class Normalisation(torch.nn.Module):
    """A batch normalisation by the statistics of the images of all processes, as ``aten::batch_norm`` in training."""

    def __init__(self, momentum: float, eps: float, ranks: Ranks) -> None:
        super().__init__()
        self._momentum, self._eps, self._ranks = momentum, eps, ranks

    def forward(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
    ) -> torch.Tensor:
        with torch.no_grad():
            moments = self._moments(x)
            count = self._ranks.count * x.numel() // x.shape[1]
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(moments[0], self._momentum)
                running_var.lerp_(moments[1] * (count / max(1, count - 1)), self._momentum)
        y: torch.Tensor = _Normalised.apply(x, weight, bias, moments, self._eps, self._ranks)
        return y

    def _moments(self, x: torch.Tensor) -> torch.Tensor:
        """Mean and variance of all channels, ``f32[2,C]``: each process has the same number of values."""
        own = torch.stack(torch.ops.aten.batch_norm_update_stats(x.float(), None, None, 0.0))
        found = self._ranks.gather(own[None])
        means, variances = found[:, 0], found[:, 1]
        mean = means.mean(0)
        return torch.stack([mean, variances.mean(0) + (means - mean).square().mean(0)])


class Dropout(torch.nn.Module):
    """Dropout that draws for the images of all processes, and takes what is for its own."""

    def __init__(self, share: float, ranks: Ranks) -> None:
        super().__init__()
        self._share, self._ranks = share, ranks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = len(x) * self._ranks.count
        kept = torch.empty((count, *x.shape[1:]), device="cpu").bernoulli_(1 - self._share)
        own = kept[self._ranks.rank * len(x) : (self._ranks.rank + 1) * len(x)]
        return x * (own / max(1 - self._share, 1e-9)).to(x)
