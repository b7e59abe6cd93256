"""What excludes each other: a layer is factored by itself or jointly with another, not both.

Layers and heads that share layers are a block, of which several sets go together. For the search a block is one thing
with the options of all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvc.passes.low_rank.heads import Heads
from lvc.passes.low_rank.layer import Layer
from lvc.passes.low_rank.options import Option
from lvc.passes.low_rank.search import choose

Item = Layer | Heads
"""What is factored: a layer by itself, or heads with the layers that make and read them."""

Weighed = Mapping[Item, Sequence[Option]]
"""The options of each thing."""

_STEPS = 32
"""So many steps a set of a block comes down by in the search."""

_MOST = 12
"""Of blocks of more things not all sets are looked at."""


@dataclass(frozen=True, eq=False)
class Block:
    """Things that share layers, and the largest sets of them that go together."""

    sets: tuple[tuple[Item, ...], ...]


@dataclass(frozen=True, eq=False)
class Together:
    """Options of several things of a block at once."""

    parts: Mapping[Item, Option]
    cost: float
    error: float


def exclude(one: Item, other: Item) -> bool:
    """Whether not both can be factored: they have a layer in common, of which not each has channels of its own."""
    if isinstance(one, Layer) and isinstance(other, Layer):
        return one is other
    if isinstance(one, Heads) and isinstance(other, Heads):
        return one is other or bool(_read(one) & layers_of(other) | layers_of(one) & _read(other))
    return bool(layers_of(one) & layers_of(other))


def layers_of(item: Item) -> set[Layer]:
    return {item} if isinstance(item, Layer) else {item.first, item.second}


def _read(heads: Heads) -> set[Layer]:
    """The layer that reads what heads give."""
    return {heads.second} if heads.reads else set()


def blocks(items: Sequence[Item]) -> list[Block]:
    """All things by what they exclude; most are a block of their own."""
    rest, found = dict.fromkeys(items), list[Block]()
    while rest:
        block = [next(iter(rest))]
        for one in block:
            rest.pop(one, None)
            block += [other for other in rest if other not in block and exclude(one, other)]
        found.append(Block(tuple(_largest_sets(block))))
    return found


def _largest_sets(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """The sets of which no two exclude each other and to which nothing can be added; of very many things a few."""
    if len(items) == 1 or len(items) > _MOST:
        for kind in (Layer, Heads):
            if some := _compatible([item for item in items if isinstance(item, kind)]):
                yield some
        return
    free = [some for count in range(1, len(items) + 1) for some in itertools.combinations(items, count)]
    free = [some for some in free if some == _compatible(some)]
    yield from (some for some in free if not any(set(some) < set(other) for other in free))


def _compatible(items: Sequence[Item]) -> tuple[Item, ...]:
    """Of several things those that none before them excludes."""
    found: list[Item] = []
    for item in items:
        if not any(exclude(item, other) for other in found):
            found.append(item)
    return tuple(found)


def offers(block: Block, weighed: Weighed, today: Mapping[Item, float]) -> list[Together]:
    """The options of a block: those of each of its sets."""
    return [one for some in block.sets for one in _together(some, weighed, today)]


def _together(some: Sequence[Item], weighed: Weighed, today: Mapping[Item, float]) -> list[Together]:
    """The options of things that go together, their costs being what they save, below 0."""
    if len(some) == 1:
        return [_sum({some[0]: one}, today) for one in weighed[some[0]]]
    total = sum(today[item] for item in some)
    most = sum(max([0.0, *(today[item] - one.cost for one in weighed[item])]) for item in some)
    options, costs = {item: weighed[item] for item in some}, {item: today[item] for item in some}
    found = (choose(options, costs, total - most * step / _STEPS) for step in range(1, _STEPS + 1))
    return [_sum(parts, today) for parts in found]


def _sum(parts: Mapping[Item, Option], today: Mapping[Item, float]) -> Together:
    costs = sum(one.cost - today[item] for item, one in parts.items())
    return Together(parts, costs, sum(one.error for one in parts.values()))


def each_by_itself(weighed: Weighed) -> dict[Item, Option]:
    """The first option of each thing; of those that exclude each other heads come first, for they say more at once."""
    heads_first = sorted((item for item, found in weighed.items() if found), key=lambda item: isinstance(item, Layer))
    return {item: weighed[item][0] for item in _compatible(heads_first)}
