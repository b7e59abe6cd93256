"""Concatenation without copies: where the parts lie one after the other in memory, they are made in their place.

Every part must begin at a multiple of a vector's bytes, for kernels load and store whole vectors from there: 8 channels
of 7x7 bytes, for one, end between two vectors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch.fx import Node

from lvc.backends.tvm.layout import Layout
from lvc.backends.tvm.operands import is_inlined
from lvc.backends.tvm.units import Unit
from lvc.compiler.graph import arguments, is_call, spec

aten = torch.ops.aten

# a value that lies inside another one: that one, and the offset in elements
Joined = dict[Node, tuple[Node, int]]


def plan_joins(
    parts: Sequence[Unit], layouts: Mapping[Node, Layout], outputs: Collection[Node], alignment: int
) -> Joined:
    """Decide which values are made inside a concatenation; a concatenation that is joined maps to itself.

    Places are multiples of ``alignment`` bytes.

    Later concatenations come first, so that one which begins with an earlier one (as in DenseNet) holds that too.
    """
    made = {unit.output: unit for unit in parts}
    joined: Joined = {}
    for unit in reversed(parts):
        if (
            len(unit.nodes) != 1
            or not is_call(unit.output, aten.cat.default)
            or not _is_contiguous(unit.output, layouts)
        ):
            continue
        offsets = list(_offsets(unit.output, layouts[unit.output]))
        if any(offset * spec(part).dtype.itemsize % alignment for part, offset in offsets):
            continue
        if _is_inside_already(unit.output, offsets, joined, outputs):
            first = offsets[0][0]
            joined[unit.output] = joined[first]
            continue
        joined.setdefault(unit.output, (unit.output, 0))
        for part, offset in offsets:
            free = part in made and part not in joined and part not in outputs and not made[part].is_alias
            if free and layouts[part] == layouts[unit.output]:
                joined[part] = (unit.output, offset)
    return joined


def is_join(unit: Unit, joined: Joined) -> bool:
    """Whether a unit is a concatenation whose parts are made or copied into their places."""
    return len(unit.nodes) == 1 and is_call(unit.output, aten.cat.default) and unit.output in joined


def copies(unit: Unit, joined: Joined, layout: Layout) -> Iterator[tuple[Node, int]]:
    """The parts that must still be copied into a concatenation, with their offsets in elements."""
    root, start = joined[unit.output]
    for part, offset in _offsets(unit.output, layout):
        if joined.get(part) != (root, start + offset) and joined.get(part) != (unit.output, offset):
            yield part, offset


def _offsets(node: Node, layout: Layout) -> Iterator[tuple[Node, int]]:
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
    node: Node, offsets: Sequence[tuple[Node, int]], joined: Joined, outputs: Collection[Node]
) -> bool:
    """Whether all parts have places in one other concatenation, one after the other."""
    if node in outputs or any(part not in joined for part, _ in offsets):
        return False
    root, start = joined[offsets[0][0]]
    return all(joined[part] == (root, start + offset) for part, offset in offsets)
