"""The ways in which a layer may be written, what each costs, and how far the model's outputs move for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.errors import CompileError
from lvc.passes.budget.costs import Cost
from lvc.passes.low_rank.costs import size_today, size_with
from lvc.passes.low_rank.factorisation import Factorisation, Parts, Ranks
from lvc.passes.low_rank.kernel import Kernel, run
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.ranks import above_noise, at_most

LEVELS = (0.1, 0.14, 0.19, 0.25, 0.32, 0.4, 0.5, 0.62, 0.76, 0.9)
"""The shares of its cost to which a layer may come down."""


@dataclass(frozen=True, eq=False)
class Option:
    """A layer written by a method with certain ranks; ``bias`` is what is added behind the kernels, None for what the
    layer adds.

    ``own`` is the squared error of its result relative to its variance, ``error`` that of the model's outputs.
    ``times`` are the seconds on the target of the layer as it is and of the kernels, where they were measured.
    """

    method: str
    ranks: Ranks
    kernels: tuple[Kernel, ...]
    cost: float
    own: float
    error: float = 0.0
    bias: torch.Tensor | None = None
    times: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """As tables show it, such as ``tucker2 16x32``."""
        return f"{self.method} {'x'.join(map(str, self.ranks))}"

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """What it makes of images, in their type; without a bias of its own, before what the layer adds."""
        made = run(self.kernels, images)
        return made if self.bias is None else made + self.bias.to(made.dtype)[:, None, None]


def ranks_by_cost(parts: Parts, layer: Layer, cost: Cost, multiple: int) -> list[Ranks]:
    """The ranks that lose least at each of `LEVELS`, without those that come twice."""
    spectra = parts.spectra
    found = (_ranks_at(level, parts.method, layer, cost, multiple=multiple, spectra=spectra) for level in LEVELS)
    return list(dict.fromkeys(ranks for ranks in found if ranks))


def least_cost(methods: Sequence[Factorisation], layer: Layer, cost: Cost, multiple: int) -> float:
    """What a layer costs at the least of the `LEVELS` that ranks of any method reach, as outlines have it.

    Which of several ranks lose least there is not known before the layer is taken apart: then the level counts.
    """
    today: float = cost.of(size_today(layer))
    found = [today]
    for method in methods:
        flat = [torch.ones(rank) for rank in method.full_ranks(layer.kernel)]
        for level in LEVELS:
            if ranks := _ranks_at(level, method, layer, cost, multiple=multiple, spectra=flat):
                exact = cost.of(size_with(layer, method.outline(layer.kernel, ranks)))
                found.append(exact if len(ranks) == 1 else level * today)
                break
    return min(found)


def _ranks_at(
    level: float, method: Factorisation, layer: Layer, cost: Cost, *, multiple: int, spectra: Sequence[torch.Tensor]
) -> Ranks | None:
    """The ranks that lose least at a level; None if none cost so little, or they are above what a method tries."""
    full = method.full_ranks(layer.kernel)

    def price(ranks: Ranks) -> float:
        return cost.of(size_with(layer, method.outline(layer.kernel, ranks)))

    ranks = at_most(full, price, level * cost.of(size_today(layer)), spectra, multiple)
    return ranks if ranks and max(ranks) <= (method.most_rank or max(full)) else None


def ranks_above_noise(parts: Parts) -> Ranks:
    """What is above the noise in each spectrum, the most of all groups; at least 1.

    The parts are those by weights alone: data would leave no noise that is the same in all of them.
    """
    count = parts.kernel.parameters // parts.kernel.groups
    found = [[_above(values, count // part.matrices) for values in part.spectra] for part in parts.groups]
    return tuple(max(1, *of_a_rank) for of_a_rank in zip(*found, strict=True))


def _above(energies: torch.Tensor, count: int) -> int:
    """How many singular values of a matrix of so many elements are above the noise, by their squares."""
    return above_noise(energies.clamp(min=0).sqrt(), len(energies), count // len(energies))


def nearest_of_each_level(options: Sequence[Option], today: float, slack: float = 1.0) -> list[Option]:
    """Of the options of one layer those that no cheaper one beats by its own error, dearest last.

    At each of `LEVELS` that is the one of least error, and with ``slack`` all whose error is at most so many times
    that. The cheapest of all is among them.
    """
    levels: dict[float, list[Option]] = {}
    for option in options:
        level = next((level for level in LEVELS if option.cost <= level * today), None)
        if level is not None:
            levels.setdefault(level, []).append(option)
    kept: list[Option] = []
    least, cheapest = float("inf"), min((option.cost for option in options), default=0.0)
    for _, found in sorted(levels.items()):
        best = min(option.own for option in found)
        near = (option for option in found if option.own <= slack * best and option.own < slack * least)
        kept += dict.fromkeys([*(option for option in found if option.cost == cheapest), *near])
        least = min(least, best)
    return kept


def factor(parts: Parts, layer: Layer, ranks: Ranks, cost: Cost) -> Option | str:
    """Factor a layer; or why that failed."""
    try:
        kernels = parts.factor(ranks)
    except CompileError as error:
        return error.what
    return Option(parts.method.name, ranks, kernels, cost.of(size_with(layer, kernels)), _weight_error(layer, kernels))


def _weight_error(layer: Layer, kernels: Sequence[Kernel]) -> float:
    """The squared error of factors relative to the layer, on noise: as far as weights alone can tell.

    How a window slides makes no difference to that.
    """
    kernel, kernels = layer.kernel.everywhere(), [one.everywhere() for one in kernels]
    size = tuple(max(8, 2 * extent) for extent in kernel.window) if kernel.window != (1, 1) else (1, 1)
    count = 4 if kernel.window != (1, 1) else 256
    noise = torch.randn(count, kernel.inputs, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = kernel.apply(noise)
    return float((run(kernels, noise) - wanted).square().mean() / wanted.square().mean().clamp(min=1e-30))
