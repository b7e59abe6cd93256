"""What rounds while a model is trained: quantisation parameters that may learn, in the form in which they do.

Each holds its parameters with one dimension, so that no weight decays them, and knows how to keep them within what the
dialect can store: scales above zero, integer zero points, powers of two where they were, codebooks in order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import set_argument
from lvc.compiler.ir.operators.codebook import fit_int8
from lvc.passes.quantisation.operands import rewrite
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters
from lvc.passes.training.fake_quantisation.straight_through import (
    by_codebook,
    integer_zero,
    one_scale,
    scale_gradient,
    scales_along,
    straight_power_of_two,
    straight_round,
)

_LEAST_SHARE = 2.0**-8  # of what a scale was at the beginning; none gets smaller
_AVERAGED = 0.1  # the share of each batch in a moving average
_TRIED = tuple(2 ** (place / 8) for place in range(-6, 7))
_IMAGES, _VALUES = 8, 1 << 14  # of a batch suffice to tell which scale fits
_MOST = 127.0


class Quantiser(torch.nn.Module, ABC):
    """Rounds a tensor, or several that keep the same parameters.

    ``scale`` is ``f32[n]``, as it is learned: what rounds is `step`. ``least`` is what a scale cannot go below.
    """

    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(scale.detach().clone().float().flatten())
        self.least: torch.Tensor
        self.register_buffer("least", self.scale.detach() * _LEAST_SHARE)
        self.has_powers = bool((torch.frexp(self.scale.detach()).mantissa == 0.5).all())

    @abstractmethod
    def round(self, x: torch.Tensor, numbers: float) -> torch.Tensor:
        """Round values; ``numbers`` is how many of one image, or of a weight, share a scale."""

    @abstractmethod
    def store(self, module: GraphModule, node: Node) -> None:
        """Write the parameters as they are now into a fake quantisation of a graph."""

    @abstractmethod
    def errors(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        """The squared error of rounding ``x`` with all scales times a factor, for each scale."""

    def step(self) -> torch.Tensor:
        """The scales to round with."""
        return straight_power_of_two(self.scale) if self.has_powers else self.scale.clone()

    @torch.no_grad()
    def average(self, x: torch.Tensor) -> None:
        """Take the scales that would have the least squared error for these values into the moving average."""
        errors = torch.stack([self.errors(x, factor) for factor in _TRIED])
        best = torch.tensor(_TRIED)[errors.argmin(0)] ** _AVERAGED
        self.scale.mul_(best)
        self.keep_valid()

    @torch.no_grad()
    def keep_valid(self) -> None:
        """Bring the parameters back to where they mean something, if a step led out of there."""
        self.scale.copy_(self.scale.maximum(self.least))


class Steps(Quantiser):
    """Uniform steps, ``low`` to ``high``, with one scale or one for each place of an axis.

    Where integers lie unevenly about zero, the offset is learned with the scale. Symmetric ones stay so, and so does
    what has no number below zero.
    """

    def __init__(self, parameters: QuantisationParameters) -> None:
        super().__init__(parameters.scale)
        self.bounds, self.axis = (parameters.low, parameters.high), parameters.axis
        self.zero: torch.Tensor
        self.register_buffer("zero", parameters.zero.flatten().float())
        is_uneven = bool((self.zero != 0).any() and (self.zero != parameters.low).any())
        self.offset = torch.nn.Parameter(-self.zero * self.scale.detach()) if is_uneven else None

    def round(self, x: torch.Tensor, numbers: float) -> torch.Tensor:
        factor = 1 / math.sqrt(numbers * self._positive)
        scale = scale_gradient(self.step(), factor)
        offset = None if self.offset is None else scale_gradient(self.offset, factor)
        if self.axis is None:
            return one_scale(x, scale, offset, int(self._zero()), self.bounds)
        zero = self.zero if offset is None else integer_zero(scale, offset, self.bounds)
        return scales_along(x, scale, zero, self.axis, self.bounds)

    def store(self, module: GraphModule, node: Node) -> None:
        scale, zero = self.step().detach(), self._zero()
        if self.axis is None:
            set_argument(node, "scale", float(scale))
            set_argument(node, "zero_point", int(zero))
            return
        rewrite(module, node, "scale", lambda _: scale)
        rewrite(module, node, "zero_point", lambda _: zero)

    def errors(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        zero, scale = self._zero(), self.step() * factor
        if self.axis is None:
            some = _some(x)
            return (one_scale(some, scale, None, int(zero), self.bounds) - some).square().sum().reshape(1)
        found = scales_along(x, scale, zero, self.axis, self.bounds)
        return (found - x).square().sum([dim for dim in range(x.ndim) if dim != self.axis % x.ndim])

    @torch.no_grad()
    def average(self, x: torch.Tensor) -> None:
        zero = self._zero()
        super().average(x)
        if self.offset is not None:
            self.offset.copy_(-zero * self.step())

    @torch.no_grad()
    def keep_valid(self) -> None:
        super().keep_valid()
        if self.offset is not None:
            step = self.step().detach()
            self.offset.copy_(self.offset.clamp(-self.bounds[1] * step, -self.bounds[0] * step))

    @property
    def _positive(self) -> int:
        """How many integers stand for numbers above zero, or may come to."""
        return self.bounds[1] if not self.zero.any() else self.bounds[1] - self.bounds[0]

    @torch.no_grad()
    def _zero(self) -> torch.Tensor:
        return self.zero if self.offset is None else integer_zero(self.step(), self.offset, self.bounds)


class Codebook(Quantiser):
    """The nearest of some values times a scale; a weight has one for each row of neighbours.

    Scales learn as for uniform steps. Values that are neither uniform nor powers of two learn too: each by the gradient
    of all weights that it stands for (Han et al. 2016, "Deep compression", section 3). Zero stays among them, they stay
    in order, and where they are integers they stay integers.
    """

    def __init__(self, values: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__(scale)
        self.shape = scale.shape
        values = values.detach().clone()
        self.are_integers, self.learns_values = fit_int8(values), not _is_regular(values)
        self.values = torch.nn.Parameter(values, requires_grad=self.learns_values)
        self.nought = int(values.abs().argmin())
        self.positive = max(1, len(values) - 1 - self.nought)

    def round(self, x: torch.Tensor, numbers: float) -> torch.Tensor:
        factor = 1 / math.sqrt(numbers * self.positive)
        most = float(self.values.detach().abs().max())
        scale = scale_gradient(self.step(), factor * (self.positive / most) ** 2)  # as for steps of that size
        if not self.learns_values:
            return by_codebook(x, self.values, scale)
        size = float(scale.detach().square().mean())
        share = 1 / math.sqrt(x.numel() * self.positive)
        return by_codebook(x, self._integers(scale_gradient(self.values, share / size)), scale)

    def store(self, module: GraphModule, node: Node) -> None:
        scale, values = self.step().detach().reshape(self.shape), self._integers(self.values).detach()
        rewrite(module, node, "scale", lambda _: scale)
        if self.learns_values:
            rewrite(module, node, "values", lambda _: values)

    def errors(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        found = by_codebook(x, self._integers(self.values), self.step() * factor)
        return (found - x).square().reshape(len(self.scale), -1).sum(1)

    @torch.no_grad()
    def keep_valid(self) -> None:
        super().keep_valid()
        if not self.learns_values:
            return
        self.values[self.nought] = 0.0
        if self.are_integers:
            self.values.clamp_(-_MOST, _MOST)
        above, below = self.values[self.nought :], self.values[: self.nought + 1]
        above.copy_(above.cummax(0).values)
        below.copy_(below.flip(0).cummin(0).values.flip(0))

    def _integers(self, values: torch.Tensor) -> torch.Tensor:
        return straight_round(values) if self.are_integers else values


def _is_regular(values: torch.Tensor) -> bool:
    """Whether values are equally far from each other, or zero and powers of two: then only scales can learn."""
    powers = torch.frexp(values).mantissa.abs()
    return bool((values.diff() == values[1] - values[0]).all()) or bool(((powers == 0.5) | (powers == 0)).all())


def _some(x: torch.Tensor) -> torch.Tensor:
    """Some values, spread over images and places."""
    some = x[:: max(1, len(x) // _IMAGES)].flatten() if x.ndim else x.flatten()
    return some[:: max(1, len(some) // _VALUES)]
