"""How one value holds the elements of another: what reshapes, permutations and slices do, as steps through the other.

Axes of a value count the elements of its source from the outermost on. A dimension may hold several of them, one in
the other: that which numbers the heads of all images has one for the images and one for the heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import insert_call, spec


@dataclass(frozen=True)
class Axis:
    """So many elements, each so many elements of the source behind the one before it."""

    size: int
    step: int

    def split(self, boundaries: Iterable[int]) -> list[Axis]:
        """The same elements along several axes, outermost first, none of which goes past a boundary of the source."""
        parts, inner = list[Axis](), self
        for boundary in sorted(boundaries, reverse=True):
            count = boundary // inner.step
            if inner.step < boundary < inner.step * inner.size and not (boundary % inner.step or inner.size % count):
                parts.append(Axis(inner.size // count, boundary))
                inner = Axis(count, inner.step)
        return [*parts, inner]


def dimensions(index: torch.Tensor) -> list[list[Axis]] | None:
    """The axes of each dimension of a value, given the place in its source of each of its elements, ``i64``; outermost
    first, none for a dimension of one element.

    None where its elements do not follow each other in regular steps onwards.
    """
    start, found, total = index.reshape(-1)[0], list[list[Axis]](), torch.zeros((), dtype=torch.int64)
    for dim in range(index.dim()):
        line = index
        for other in range(index.dim()):
            line = line if other == dim else line.narrow(other, 0, 1)
        offsets = line.reshape(-1) - start
        axes = _axes(offsets.tolist())
        if axes is None:
            return None
        found.append(axes)
        total = total + offsets.view(*(-1 if place == dim else 1 for place in range(index.dim())))
    return found if torch.equal(total + start, index) else None


def _axes(offsets: list[int]) -> list[Axis] | None:
    """The axes of offsets that begin at 0."""
    axes: list[Axis] = []
    while len(offsets) > 1:
        step = offsets[1]
        count = next((place for place, offset in enumerate(offsets) if offset != place * step), len(offsets))
        if step <= 0 or len(offsets) % count:
            return None
        blocks = offsets[::count]
        if offsets != [block + place * step for block in blocks for place in range(count)]:
            return None
        axes.append(Axis(count, step))
        offsets = blocks
    return axes[::-1]


@dataclass(frozen=True)
class Arrangement:
    """A value as a source taken apart and put together: ``sizes`` are those of the axes in the order of the source,
    ``dims`` says which of them each dimension of the value holds, outermost first.

    Source dimensions of one element count as axes, so that images keep a place of their own when there is one of them.
    """

    sizes: tuple[int, ...]
    dims: tuple[tuple[int, ...], ...]

    def insert(self, before: Node, source: Node, sizes: Mapping[int, int]) -> Node:
        """Insert the calls that make the value of a source some of whose axes have other sizes."""
        full = [sizes.get(place, size) for place, size in enumerate(self.sizes)]
        order = [place for dim in self.dims for place in dim]
        shape = [torch.Size(full[place] for place in dim).numel() for dim in self.dims]
        value = _reshaped(before, source, full)
        if order != sorted(order):
            value = insert_call(before, aten.permute.default, value, order)
        return _reshaped(before, value, shape)


def _reshaped(before: Node, value: Node, shape: list[int]) -> Node:
    return value if list(spec(value).shape) == shape else insert_call(before, aten.reshape.default, value, shape)
