"""From labels to groups: classes that live in the same dimensions of the same stored tensors are the units of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import Node

from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, origin, spec
from lvc.compiler.ir.layers import CONTRACTIONS, FLOATING
from lvc.compiler.ir.model import Model
from lvc.passes.analysis.channel_groups import Carrier, ChannelGroup, Channels, Member, Role
from lvc.passes.analysis.channels.flow import Flow

_WEIGHTS: dict[OpOverload, tuple[str, dict[int, Role]]] = {
    entry.operator: (entry.weight, {entry.made: Role.PRODUCES, entry.read: Role.CONSUMES})
    for entry in map(CONTRACTIONS.__getitem__, FLOATING)
} | {aten.embedding.default: ("weight", {1: Role.PRODUCES})}
"""Which operand of a layer is its weight, and what the dimensions of that do."""


@dataclass(frozen=True, eq=False)
class _Place:
    """A dimension of a stored tensor with the root of each index."""

    node: Node
    dim: int
    roots: torch.Tensor
    role: Role
    layer: Node


@dataclass(eq=False)
class _Bucket:
    """The classes of one group to be: where they live, why they are fixed, and their roots in order."""

    places: list[_Place]
    fixed: str | None
    roots: list[int]

    @property
    def producer(self) -> _Place:
        return next(place for place in self.places if place.role is Role.PRODUCES)


def group(model: Model, flow: Flow) -> Channels:
    """Make groups of the classes that labels have after they went through a graph."""
    order = {node: place for place, node in enumerate(model.module.graph.nodes)}
    buckets = _buckets(sorted(_places(flow), key=lambda place: order[place.layer]), flow.partition.reasons())
    numbers = _number(buckets, len(flow.partition))
    units = {node.name: _units(flow, node, numbers) for node in flow.labels}
    free = [bucket for bucket in buckets if not bucket.fixed]
    carriers = dict(zip(map(id, free), _carriers(model, units, [len(bucket.roots) for bucket in free]), strict=True))
    owner, unit = _owners(buckets, len(flow.partition))
    members = [
        _members(bucket, [torch.where(owner[p.roots] == number, unit[p.roots], -1) for p in bucket.places])
        for number, bucket in enumerate(buckets)
    ]
    groups = (
        ChannelGroup(name, len(bucket.roots), its, carriers.get(id(bucket), ()), bucket.fixed)
        for name, bucket, its in zip(_names(buckets), buckets, members, strict=True)
    )
    return Channels(tuple(groups), units, {node.name: spec(node).shape for node in flow.labels})


def _places(flow: Flow) -> Iterator[_Place]:
    for node, labels in flow.labels.items():
        if node.op == "get_attr" and node.users:
            for dim, atoms in enumerate(labels):
                assert not isinstance(atoms, str)
                role, layer = _role(node, dim - len(labels)), next(iter(node.users))
                yield _Place(node, dim, flow.partition.find(atoms), role, layer)


def _role(node: Node, dim: int) -> Role:
    """Say what a dimension, counted from the end, of a stored tensor does in the first layer that reads it."""
    layer = next(iter(node.users))
    operand, roles = _WEIGHTS.get(layer.target, ("", {})) if isinstance(layer.target, OpOverload) else ("", {})
    if not operand or arguments(layer)[operand] is not node:
        return Role.SCALES
    return roles.get(dim, roles.get(dim + len(spec(node).shape), Role.SCALES))


def _buckets(places: list[_Place], reasons: dict[int, str]) -> list[_Bucket]:
    """Sort classes by where they live, and drop those that no layer produces."""
    homes: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        for root in dict.fromkeys(place.roots.tolist()):
            homes.setdefault(root, []).append(number)
    buckets: dict[tuple[tuple[int, ...], str | None], _Bucket] = {}
    for root, home in homes.items():
        if any(places[number].role is Role.PRODUCES for number in home):
            fixed = reasons.get(root)
            empty = _Bucket([places[number] for number in home], fixed, [])
            buckets.setdefault((tuple(home), fixed), empty).roots.append(root)
    return list(buckets.values())


def _number(buckets: list[_Bucket], atoms: int) -> torch.Tensor:
    """Return the number of each root's unit, -1 for all others."""
    numbers = torch.full((atoms,), -1)
    free = [root for bucket in buckets if not bucket.fixed for root in bucket.roots]
    numbers[free] = torch.arange(len(free))
    return numbers


def _units(flow: Flow, node: Node, numbers: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    dims = (None if isinstance(atoms, str) else numbers[flow.partition.find(atoms)] for atoms in flow.labels[node])
    return tuple(None if units is None or bool((units < 0).all()) else units for units in dims)


def _names(buckets: list[_Bucket]) -> list[str]:
    """Name groups after the origin of their first producer, numbered from the second on where several share it."""
    seen: Counter[str] = Counter()
    names = []
    for bucket in buckets:
        base = origin(bucket.producer.layer)
        seen[base] += 1
        names.append(base if seen[base] == 1 else f"{base}:{seen[base]}")
    return names


def _owners(buckets: list[_Bucket], atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each root the number of its bucket, -1 if it is in none, and its place there; both ``i64[atoms]``."""
    owner, unit = torch.full((atoms,), -1), torch.zeros(atoms, dtype=torch.int64)
    for number, bucket in enumerate(buckets):
        owner[bucket.roots] = number
        unit[bucket.roots] = torch.arange(len(bucket.roots))
    return owner, unit


def _members(bucket: _Bucket, units: list[torch.Tensor]) -> tuple[Member, ...]:
    return tuple(
        Member(
            tensor=str(place.node.target),
            dim=place.dim,
            units=own,
            role=place.role,
            layer=place.layer.name,
        )
        for place, own in zip(bucket.places, units, strict=True)
    )


def _carriers(
    model: Model, units: dict[str, tuple[torch.Tensor | None, ...]], sizes: list[int]
) -> list[tuple[Carrier, ...]]:
    """Return the carriers of each free group, given how many units each has."""
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    found: list[list[Carrier]] = [[] for _ in sizes]
    for node in calls(model.module.graph):
        for dim, numbers in enumerate(units[node.name]):
            if numbers is None:
                continue
            carried = torch.where(numbers < 0, -1, owners[numbers])
            for owner in set(carried.tolist()) - {-1}:
                own = torch.where(carried == owner, numbers - starts[owner], -1)
                found[owner].append(Carrier(node.name, dim, own))
    return [tuple(carriers) for carriers in found]
