"""Concatenation without copies: where the parts lie one after the other in memory, they are made in their place.

Every part must begin at a multiple of a vector's bytes, for kernels load and store whole vectors from there: 8 channels
of 7x7 bytes, for one, end between two vectors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.operands import is_inlined
from lvc.backends.tvm.units import Unit
from lvc.compiler.ir.graph import arguments, is_call, spec

aten = torch.ops.aten


@dataclass
class Joins:
    """Which concatenations need no kernel (``in_place``), and the values that lie inside another one (``places``): that
    one, and the offset in elements. A concatenation along a dimension in which its parts do not follow each other in
    memory has a kernel, and may lie inside another one all the same."""

    places: dict[Node, tuple[Node, int]] = field(default_factory=dict)
    in_place: set[Node] = field(default_factory=set)

    def is_in_place(self, unit: Unit) -> bool:
        """Whether a unit is a concatenation whose parts are made or copied into their places."""
        return unit.output in self.in_place

    def copies(self, unit: Unit, layout: Layout) -> Iterator[tuple[Node, int]]:
        """The parts that must still be copied into a concatenation, with their offsets in elements."""
        root, start = self.places[unit.output]
        for part, offset in parts_of(unit.output, layout):
            if self.places.get(part) not in ((root, start + offset), (unit.output, offset)):
                yield part, offset


def plan_joins(
    parts: Sequence[Unit], layouts: Mapping[Node, Layout], outputs: Collection[Node], alignment: int
) -> Joins:
    """Decide which values are made inside a concatenation; the outermost one of a nest maps to itself.

    Places are multiples of ``alignment`` bytes.

    Later concatenations come first, so that one which begins with an earlier one (as in DenseNet) holds that too.
    """
    made = {unit.output: unit for unit in parts}
    joins = Joins()
    for unit in reversed(parts):
        is_cat = len(unit.nodes) == 1 and is_call(unit.output, aten.cat.default)
        if not is_cat or not _is_contiguous(unit.output, layouts):
            continue
        offsets = list(parts_of(unit.output, layouts[unit.output]))
        if any(offset * spec(part).dtype.itemsize % alignment for part, offset in offsets):
            continue
        joins.in_place.add(unit.output)
        if _is_inside_already(unit.output, offsets, joins.places, outputs):
            joins.places[unit.output] = joins.places[offsets[0][0]]
            continue
        joins.places.setdefault(unit.output, (unit.output, 0))
        for part, offset in offsets:
            free = part in made and part not in joins.places and part not in outputs and not made[part].is_alias
            if free and layouts[part] == layouts[unit.output]:
                joins.places[part] = (unit.output, offset)
    return joins


def parts_of(node: Node, layout: Layout) -> Iterator[tuple[Node, int]]:
    """The parts of a concatenation that are not empty, with their offsets in elements if they follow each other."""
    offset = 0
    for part in arguments(node)["tensors"]:
        if spec(part).elements:
            yield part, offset
        offset += layout.elements(spec(part).shape) if spec(part).elements else 0


def _is_contiguous(node: Node, layouts: Mapping[Node, Layout]) -> bool:
    """Whether the parts of a concatenation lie one after the other."""
    layout, shape = layouts[node], spec(node).shape
    dim = arguments(node)["dim"] % len(shape)
    parts = [part for part in arguments(node)["tensors"] if spec(part).elements]
    if any(spec(part).dtype != spec(node).dtype or part.op == "get_attr" or is_inlined(part) for part in parts):
        return False
    if len(set(parts)) != len(parts) or math.prod(shape[:dim]) != 1:
        return False
    if not layout.block:
        return True
    return dim == 1 and all(spec(part).shape[1] % layout.block == 0 for part in parts)


def _is_inside_already(
    node: Node, offsets: Sequence[tuple[Node, int]], places: Mapping[Node, tuple[Node, int]], outputs: Collection[Node]
) -> bool:
    """Whether all parts have places in one other concatenation, one after the other."""
    if node in outputs or any(part not in places for part, _ in offsets):
        return False
    root, start = places[offsets[0][0]]
    return all(places[part] == (root, start + offset) for part, offset in offsets)
