"""Where the images of a batch lie in a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class BatchAxis:
    """Dimension ``dim`` counts ``outer`` times all images, each with ``inner`` places that lie together.

    Windows of attention, ``[images * windows, ...]``, have ``inner=windows``; positions that come first,
    ``[positions * images, ...]``, have ``outer=positions``.
    """

    dim: int
    outer: int = 1
    inner: int = 1

    def size(self, batch: int) -> int:
        return self.outer * batch * self.inner

    def shape(self, shape: Sequence[int], batch: int) -> tuple[int, ...]:
        """A shape as it is for another batch."""
        return (*shape[: self.dim], self.size(batch), *shape[self.dim + 1 :])

    def at(self, dim: int) -> BatchAxis:
        return replace(self, dim=dim)

    def image(self, value: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """Some of the images of a value, as a value of their own; a view where they lie together."""
        if self.outer == 1:
            return value.narrow(self.dim, first * self.inner, count * self.inner)
        return self._apart(value).narrow(self.dim + 1, first, count).flatten(self.dim, self.dim + 2)

    def spread(self, value: torch.Tensor, before: int, batch: int) -> torch.Tensor:
        """What is the same for any ``before`` images, for a batch of another size; `image` is its inverse."""
        apart = self._apart(value)
        if before == 1:
            known = apart.expand(*apart.shape[: self.dim + 1], batch, *apart.shape[self.dim + 2 :])
        else:
            known = torch.cat([apart] * -(-batch // before), self.dim + 1).narrow(self.dim + 1, 0, batch)
        return known.flatten(self.dim, self.dim + 2)

    def _apart(self, value: torch.Tensor) -> torch.Tensor:
        """The value with its images in dimension ``dim + 1``."""
        return value.reshape(*value.shape[: self.dim], self.outer, -1, self.inner, *value.shape[self.dim + 1 :])

    def in_shape(self, old: Sequence[int], new: Sequence[int], batch: int) -> list[BatchAxis]:
        """Where the images may lie once the elements are read in another shape, the likeliest first.

        Elements keep their order. For one image several places come into question, since its size of 1 stands for it
        in each.
        """
        outer = math.prod(old[: self.dim]) * self.outer
        found = []
        for dim, size in enumerate(new):
            left = math.prod(new[:dim])
            if not left or outer % left or size % (outer // left * batch) or not size:
                continue
            found.append(BatchAxis(dim, outer // left, size // (outer // left * batch)))
        return sorted(found, key=lambda axis: (axis.outer > 1 or axis.inner > 1, axis.dim != self.dim))


@dataclass(frozen=True)
class Times:
    """A number in a call that is so many times the batch."""

    factor: int


def at_batch(template: Any, batch: int) -> Any:
    """Return an argument with numbers in place of `Times`."""
    if isinstance(template, Times):
        return template.factor * batch
    return [at_batch(part, batch) for part in template] if isinstance(template, list | tuple) else template


def sizes_of(shape: Sequence[int], axis: BatchAxis) -> list[int | Times]:
    """A shape in which the dimension of the batch is a multiple of it."""
    return [Times(axis.outer * axis.inner) if dim == axis.dim else size for dim, size in enumerate(shape)]
