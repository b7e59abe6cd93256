"""What a budget counts, as far as it follows from shapes alone: multiply-accumulates, parameters, bytes of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lvc.compiler.ir.graph import calls, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import macs


@dataclass(frozen=True)
class Size:
    """How large a model or a part of it is."""

    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """A cost by its name in sentences, and which part of a size it is."""

    name: str
    of: Callable[[Size], int]


MACS = Cost("MACs", lambda size: size.macs)
COSTS = {
    "macs": MACS,
    "params": Cost("parameters", lambda size: size.parameters),
    "bytes": Cost("bytes", lambda size: size.bytes),
}
"""Each by the option that limits it."""


def size_of(model: Model, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Size:
    """The size of a model; ``shapes`` are those that its values would have, by node name, in place of their own."""
    stored = [node for node in model.module.graph.nodes if node.op == "get_attr"]
    counts = [math.prod(spec(node).shape if shapes is None else shapes[node.name]) for node in stored]
    return Size(
        sum(macs(node, shapes) for node in calls(model.module.graph)),
        sum(counts),
        sum(count * spec(node).dtype.itemsize for node, count in zip(stored, counts, strict=True)),
    )
