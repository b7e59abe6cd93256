"""What a way to factor a layer is, and how one is found by its name.

The method `spatial-svd` is the file `spatial_svd.py` of `lvc.passes.factorisations`; other packages add theirs through
the entry point `lvc.factorisations`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from lvc.compiler.pipeline.registry import Classes, Component
from lvc.passes.low_rank.kernel import Kernel
from lvc.passes.low_rank.statistics import Statistics

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Decomposition:
    """A kernel of one group taken apart: ``weights`` gives those of the layers for ranks, ``f64``.

    ``spectra`` has for each rank the energies that it may keep, largest first; their sum is all. They are the squared
    singular values of a matrix with all weights of the kernel, or sums of those of as many ``matrices`` that it falls
    into.
    """

    spectra: tuple[torch.Tensor, ...]
    weights: Callable[[Ranks], tuple[torch.Tensor, ...]]
    matrices: int = 1


@dataclass(frozen=True, kw_only=True)
class Factorisation(Component):
    """Writes a layer as layers one after the other that together compute nearly the same. Fields are options.

    Ranks are those of each group of channels. ``outline`` says which layers there are for given ranks, ``decompose``
    finds what their weights are for one group; the last of them is a plain product of channels, or slides along one
    axis, so that it can be fitted by least squares.
    """

    most_rank: ClassVar[int | None] = None  # above which a budget does not try it, for it takes too long

    @abstractmethod
    def refusal(self, kernel: Kernel) -> str | None:
        """Why a layer cannot be written so; None if it can."""

    @abstractmethod
    def full_ranks(self, kernel: Kernel) -> Ranks:
        """The least ranks at which nothing is lost, whatever the weights are."""

    @abstractmethod
    def outline(self, kernel: Kernel, ranks: Ranks) -> tuple[Kernel, ...]:
        """The layers, their weights being shapes alone."""

    @abstractmethod
    def decompose(self, kernel: Kernel, known: Statistics) -> Decomposition:
        """Take apart a kernel of one group so that the error of its result on the data is small, at any ranks."""

    def factor(self, kernel: Kernel, ranks: Ranks, known: Statistics | None = None) -> tuple[Kernel, ...]:
        """Factor each group of channels, all with the same ranks."""
        return Parts.of(self, kernel, known or Statistics()).factor(ranks)


@dataclass(frozen=True)
class Parts:
    """A kernel taken apart by a method, group by group."""

    method: Factorisation
    kernel: Kernel
    groups: tuple[Decomposition, ...]

    @classmethod
    def of(cls, method: Factorisation, kernel: Kernel, known: Statistics) -> Parts:
        parts = zip(kernel.split(), known.split(kernel), strict=True)
        return cls(method, kernel, tuple(method.decompose(part, about) for part, about in parts))

    @property
    def spectra(self) -> tuple[torch.Tensor, ...]:
        """Those of all groups together."""
        found = zip(*(part.spectra for part in self.groups), strict=True)
        return tuple(torch.stack(of_a_rank).sum(0) for of_a_rank in found)

    def factor(self, ranks: Ranks) -> tuple[Kernel, ...]:
        """The layers for given ranks."""
        weights = zip(*(part.weights(ranks) for part in self.groups), strict=True)
        return tuple(
            replace(layer, weight=torch.cat(parts).reshape(layer.weight.shape))
            for layer, parts in zip(self.method.outline(self.kernel, ranks), weights, strict=True)
        )


METHODS: Classes[Factorisation] = Classes(
    "lvc.passes.low_rank.factorisation:Factorisation", "lvc.passes.factorisations", "method"
)
