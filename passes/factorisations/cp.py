"""A 1x1 convolution, windows of each channel on its own down and across, and a 1x1 convolution.

The weight is a sum of ``R`` products of four vectors, found by alternating least squares. Such a sum need not have a
best approximation: terms can grow without bound and cancel each other, which leaves nothing of single precision. So
each step is held by a ridge, and a fit whose terms are together far larger than what they add up to is refused.
Sources: Lebedev et al., "Speeding-up convolutional neural networks using fine-tuned CP-decomposition", 2015; Phan et
al., "Stable low-rank tensor decomposition for compression of convolutional neural network", 2020, for degeneracy; Kolda
and Bader, "Tensor decompositions and applications", 2009, section 3.4, for the alternation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import CompileError
from lvc.passes.low_rank.axes import mode_axes, times, unfold
from lvc.passes.low_rank.factorisation import Decomposition, Factorisation, Ranks
from lvc.passes.low_rank.kernel import Kernel, shape_of
from lvc.passes.low_rank.statistics import Statistics

_TURNS = 30
_RIDGES = (1e-4, 1e-2)
"""Relative to the mean diagonal of the normal equations; the second where the first lets terms grow."""
_LEAST_GAIN = 1e-4
_MOST_CANCELLATION = 100.0
"""How much larger the terms may be together than what they add up to, in squares."""

Terms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Cp(Factorisation):
    """1x1, each channel's window down and across, 1x1: a sum of products of vectors."""

    name: ClassVar[str] = "cp"
    most_rank: ClassVar[int | None] = 512

    def refusal(self, kernel: Kernel) -> str | None:
        if kernel.window == (1, 1):
            return "its window is 1x1, which is for svd"
        return "it convolves each channel on its own as it is" if kernel.weight.shape[1] == 1 else None

    def full_ranks(self, kernel: Kernel) -> Ranks:
        (height, width), channels = kernel.window, min(kernel.weight.shape[1], kernel.outputs // kernel.groups)
        return (channels * height * width,)

    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        (rank,), (height, width) = ranks, kernel.window
        terms = kernel.groups * rank
        return (
            kernel.pointwise(shape_of(terms, kernel.weight.shape[1], 1, 1)),
            kernel.along(0, shape_of(terms, 1, height, 1), groups=terms),
            kernel.along(1, shape_of(terms, 1, 1, width), groups=terms),
            kernel.pointwise(shape_of(kernel.outputs, rank, 1, 1)),
        )

    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        """The spectrum is the longer of those by inputs and by outputs: a fit needs as many terms at least."""
        root, inverse = known.roots(kernel.inputs)
        whole, height = times(kernel.weight, root.T, 1), kernel.window[0]
        axes = mode_axes(whole, 0), mode_axes(whole, 1)

        def weights(ranks: Ranks) -> tuple[torch.Tensor, ...]:
            if ranks == self.full_ranks(kernel):
                outputs, inputs, windows = _every_place(kernel.weight)
            else:
                outputs, inputs, windows = _in_subspace(whole, ranks[0], axes[0][1], axes[1][1])
                inputs = inverse.T @ inputs
            return inputs.T, windows[:height].T, windows[height:].T, outputs

        energies = max((values for values, _ in axes), key=len)
        return Decomposition((energies[: self.full_ranks(kernel)[0]],), weights)


def _in_subspace(whole: torch.Tensor, rank: int, outputs: torch.Tensor, inputs: torch.Tensor) -> Terms:
    """A fit in the space of as many principal axes of outputs and inputs as there are terms: more can hardly be used.

    Source: Carroll et al., "CANDELINC: a general approach to multidimensional analysis of many-way arrays with linear
    constraints on parameters", 1980.
    """
    outputs, inputs = outputs[:, :rank], inputs[:, :rank]
    made, read, windows = _fit(times(times(whole, outputs.T, 0), inputs.T, 1), rank)
    return outputs @ made, inputs @ read, windows


def _every_place(weight: torch.Tensor) -> Terms:
    """A term for each place of the window and channel of the narrower side: exact."""
    outputs, inputs, height, width = weight.shape
    windows = torch.eye(height * width, dtype=weight.dtype)
    down, across = torch.eye(height, dtype=weight.dtype), torch.eye(width, dtype=weight.dtype)
    places = torch.cat([down.repeat_interleave(width, 1), across.repeat(1, height)])
    if inputs <= outputs:
        made = weight.reshape(outputs, inputs * height * width)
        return made, torch.eye(inputs, dtype=weight.dtype).repeat_interleave(len(windows), 1), places.repeat(1, inputs)
    read = weight.movedim(1, 0).reshape(inputs, outputs * height * width)
    return torch.eye(outputs, dtype=weight.dtype).repeat_interleave(len(windows), 1), read, places.repeat(1, outputs)


def _fit(whole: torch.Tensor, rank: int) -> Terms:
    """The terms of a weight ``f64[out, in, height, width]``: outputs, inputs, and windows down over those across, one
    column a term; `CompileError` where no ridge keeps them from cancelling each other."""
    for ridge in _RIDGES:
        outputs, inputs, windows = _alternate(whole, rank, ridge)
        height = whole.shape[2]
        factors = (outputs, inputs, windows[:height], windows[height:])
        apart = math.prod(part.square().sum(0) for part in factors)
        together = math.prod(part.T @ part for part in factors).sum()  # type: ignore[union-attr]
        if float(apart.sum()) <= _MOST_CANCELLATION * float(together):  # type: ignore[union-attr]
            return outputs, inputs, windows
    raise CompileError(
        f"cp of rank {rank} is degenerate: its terms grow without bound and cancel each other",
        help="take another rank, or another method",
    )


def _alternate(whole: torch.Tensor, rank: int, ridge: float) -> Terms:
    outputs_by_rest, inputs_by_rest = unfold(whole, 0), unfold(whole, 1)
    places = whole.permute(2, 3, 0, 1)
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = (_start(whole, mode, rank, generator) for mode in (0, 1))
    down, across = (_start(whole, mode, rank, generator) for mode in (2, 3))
    size, before = float(whole.square().sum()) or 1.0, math.inf
    for _ in range(_TURNS):
        windows = torch.einsum("hr,wr->hwr", down, across).flatten(0, 1)
        grams = [part.T @ part for part in (outputs, inputs, down, across)]
        inputs = _solve(inputs_by_rest @ _rows(outputs, windows), grams[0] * grams[2] * grams[3], ridge)
        grams[1] = inputs.T @ inputs
        given = torch.einsum("hwri,ir->hwr", outputs.T @ places, inputs)
        down = _solve(torch.einsum("hwr,wr->hr", given, across), grams[0] * grams[1] * grams[3], ridge)
        grams[2] = down.T @ down
        across = _solve(torch.einsum("hwr,hr->wr", given, down), grams[0] * grams[1] * grams[2], ridge)
        inputs, down, across = map(_normalised, (inputs, down, across))
        windows = torch.einsum("hr,wr->hwr", down, across).flatten(0, 1)
        gram = (inputs.T @ inputs) * (down.T @ down) * (across.T @ across)
        wanted = outputs_by_rest @ _rows(inputs, windows)
        outputs = _solve(wanted, gram, ridge)
        error = (size - 2 * float((outputs * wanted).sum()) + float((outputs.T @ outputs * gram).sum())) / size
        if before - error < _LEAST_GAIN * error:
            break
        before = error
    return outputs, inputs, torch.cat([down, across])


def _start(whole: torch.Tensor, mode: int, rank: int, generator: torch.Generator) -> torch.Tensor:
    """Random columns, the first of them near the principal axes of a mode: from there alone nothing may move."""
    axes = mode_axes(whole, mode)[1][:, :rank]
    drawn = torch.randn(whole.shape[mode], rank, generator=generator, dtype=torch.float64)
    drawn[:, : axes.shape[1]] = axes + 0.03 * drawn[:, : axes.shape[1]]
    return _normalised(drawn)


def _rows(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Every product of a row of one with a row of the other, column by column (Khatri-Rao)."""
    return torch.einsum("ir,jr->ijr", first, second).flatten(0, 1)


def _solve(wanted: torch.Tensor, gram: torch.Tensor, ridge: float) -> torch.Tensor:
    held = gram + (ridge * gram.diagonal().mean() + 1e-30) * torch.eye(len(gram), dtype=gram.dtype)
    solution: torch.Tensor = torch.cholesky_solve(wanted.T, torch.linalg.cholesky(held))
    return solution.T


def _normalised(columns: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = columns / columns.norm(dim=0).clamp(min=1e-30)
    return unit
