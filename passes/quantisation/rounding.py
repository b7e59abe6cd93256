"""Fit a matrix to the outputs that are wanted, and quantise it so that its products change least.

``W`` shall give the outputs ``y`` from inputs ``x``. A change ``D`` of it moves the squared error about the mean by

    E(D) = tr(D' C D) - 2 tr(D' M)        C = cov(x)    M = cov(x, y - W x)

Few data say little about many weights, so changes are held back: ``(C + r) T = M`` is ridge regression about those that
there are. Of all D that lead to quantised weights, one with a small ``|L' (D - T)|^2`` is wanted, ``C + d = L L'``.
Back substitution finds the rows of D from the last to the first (``L'`` is triangular); each is rounded as it is found,
and those that are still free make up for its error. Inputs that vary most come last, so they are rounded first.

This is the error feedback of Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained
transformers", section 3.3, with the order of columns by activations from its implementation, in the form of the nearest
plane of Babai 1986, "On Lovasz' lattice reduction and the nearest lattice point problem": it takes no inverse. The
squared length that is left over is known on the way, so steps of several sizes can be tried, output by output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lvc.passes.fitting.ridge import NormalEquations
from lvc.passes.quantisation.quantisation_parameters import QuantisationParameters

_BLOCK = 64


@dataclass(frozen=True)
class Places:
    """Weights in steps of their scales, ``[groups,in,out]``, inputs in some order; the rest is ``[groups,1,out]``."""

    start: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    codebook: torch.Tensor | None = None

    @classmethod
    def of(cls, weight: torch.Tensor, parameters: QuantisationParameters, order: torch.Tensor) -> Places:
        groups, outputs, _ = weight.shape
        scale, zero = (
            part.float().expand(groups * outputs).reshape(groups, 1, -1) for part in (parameters.scale, parameters.zero)
        )
        return cls(
            weight.transpose(1, 2)[:, order] / scale,
            scale,
            parameters.low - zero,
            parameters.high - zero,
            parameters.codebook,
        )

    def nearest(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the nearest numbers of steps that weights can have, ``[groups,in,out]``."""
        if self.codebook is None:
            return steps.round().clamp_(self.low, self.high)
        return self.codebook[torch.bucketize(steps, (self.codebook[1:] + self.codebook[:-1]) / 2)]

    def some(self, outputs: slice | torch.Tensor) -> Places:
        start, scale, low, high = (part[..., outputs] for part in (self.start, self.scale, self.low, self.high))
        return Places(start, scale, low, high, self.codebook)

    def scaled(self, factor: torch.Tensor | float) -> Places:
        """Return the places of the same weights in steps that are larger by a factor."""
        return replace(self, start=self.start / factor, scale=self.scale * factor)

    @classmethod
    def joined(cls, several: Sequence[Places]) -> Places:
        """Return places that lie beside each other, as further outputs."""
        parts = zip(*((p.start, p.scale, p.low, p.high) for p in several), strict=True)
        start, scale, low, high = (torch.cat(part, 2) for part in parts)
        return cls(start, scale, low, high, several[0].codebook)

    def change(self, integers: torch.Tensor) -> torch.Tensor:
        """Return by how much the weights change that become integers of steps."""
        return (integers - self.start) * self.scale

    def weights(self, integers: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """Return weights ``[groups,out,in]`` of integers of steps."""
        found = torch.empty_like(integers)
        found[:, order] = integers * self.scale
        return found.transpose(1, 2)


def ordered(equations: NormalEquations, order: torch.Tensor) -> NormalEquations:
    """Return equations with the inputs in some order."""
    return NormalEquations(equations.inputs[:, order[:, None], order], equations.missing[:, order])


def placed(
    equations: NormalEquations,
    places: Places,
    wanted: torch.Tensor,
    damping: float,
    factors: Sequence[float] = (1.0,),
) -> tuple[Places, torch.Tensor]:
    """Return weights in whole steps as `rounded` does, of the size that serves each output best."""
    sizes = Places.joined([places.scaled(factor) for factor in factors])
    integers, errors = rounded(equations, sizes, wanted.repeat(1, 1, len(factors)), damping)
    groups, inputs, outputs = wanted.shape
    best = errors.reshape(groups, 1, len(factors), outputs).argmin(2, keepdim=True)
    integers = integers.reshape(groups, inputs, -1, outputs).take_along_dim(best, 2)[:, :, 0]
    return places.scaled(torch.tensor(factors)[best][:, :, 0]), integers


def rounded(
    equations: NormalEquations, places: Places, wanted: torch.Tensor, damping: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights in whole steps, whose products differ least from those of the weights with a wanted change.

    The second result is what they differ by, squared, ``[groups,out]``. With infinite damping, each is rounded for
    itself.
    """
    change = wanted / places.scale
    if damping == math.inf:
        integers = places.nearest(places.start + change)
        return integers, ((places.change(integers) - wanted).square()).sum(1)
    factor = equations.factor(damping)
    left = factor.transpose(1, 2) @ change
    sizes = factor.diagonal(dim1=1, dim2=2)[:, :, None]
    steps = sizes.reciprocal()
    integers, errors = torch.empty_like(left), torch.zeros_like(places.low[:, 0])
    for end in range(left.shape[1], 0, -_BLOCK):
        begin = max(0, end - _BLOCK)
        for j in range(end - 1, begin - 1, -1):
            free = torch.addcmul(places.start[:, j], left[:, j], steps[:, j])
            integers[:, j] = places.nearest(free[:, None])[:, 0]
            errors += free.sub_(integers[:, j]).mul_(sizes[:, j]).square_()
            change[:, j] = integers[:, j] - places.start[:, j]
            left[:, begin:j].addcmul_(factor[:, j, begin:j, None], change[:, j, None], value=-1)
        left[:, :begin].baddbmm_(factor[:, begin:end, :begin].transpose(1, 2), change[:, begin:end], alpha=-1)
    return integers, errors * places.scale[:, 0].square()
