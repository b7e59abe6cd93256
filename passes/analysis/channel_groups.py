"""Which channels can be removed from a model, and what goes with each: groups of units with exact index maps.

A *unit* is everything that must go together when one channel goes: for a plain convolution its output channel, the
channel's bias and batch normalisation, and the slice of every weight that reads it. Where an addition, a
concatenation, a shuffle or attention heads tie channels to one another, a unit is all of them. Any set of units can be
removed; a *group* is the set of units that live in the same dimensions of the same stored tensors, so its units can be
compared with one another, and every width stays above zero while each group keeps a unit.

    channels = channel_groups(model)
    remove(model, channels, {"layer1.0.conv1": [0, 5, 7]})          # lvc.passes.analysis.channels.surgery
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.analysis import Findings

Removal = Mapping[str, Sequence[int]]
"""Units to remove, by the name of their group."""


class Role(Enum):
    """What a dimension of a stored tensor does with the channels along it."""

    PRODUCES = "produces"  # output channels of a layer's weight
    CONSUMES = "consumes"  # input channels of a layer's weight
    SCALES = "scales"  # one value a channel: biases, normalisations, layer scales, positional embeddings


@dataclass(frozen=True, eq=False)
class Member:
    """A dimension of a stored tensor that shrinks with a group.

    ``tensor`` is its dotted name, ``layer`` the name of the first call that reads it. ``units`` is ``i64[n]`` over the
    indices of the dimension: the unit of the group that an index belongs to, or -1 for one that is none of the group's.
    """

    tensor: str
    dim: int
    units: torch.Tensor
    role: Role
    layer: str


@dataclass(frozen=True, eq=False)
class Carrier:
    """A dimension of a computed value that holds the channels of a group; ``units`` as for `Member`."""

    node: str
    dim: int
    units: torch.Tensor


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Units ``0 .. size-1`` that may go in any combination, as long as one stays.

    ``name`` is the origin of the first layer that produces them. ``fixed`` says why none may go, or is None.
    ``carriers`` are in graph order, the first one being the result of the first producer.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    carriers: tuple[Carrier, ...]
    fixed: str | None = None

    @property
    def producers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role is Role.PRODUCES)

    @property
    def consumers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role is Role.CONSUMES)


@dataclass(frozen=True, eq=False)
class Channels:
    """The groups of one model, fixed ones included, in graph order. Holds for copies of the model too.

    ``units`` has for every node, by name, and each of its dimensions the unit of every index, ``i64[n]``, counted over
    all groups in order, with -1 for what cannot go; None for a dimension that stays whole.
    """

    groups: tuple[ChannelGroup, ...]
    units: Mapping[str, tuple[torch.Tensor | None, ...]]
    sizes: Mapping[str, tuple[int, ...]]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> ChannelGroup:
        return {group.name: group for group in self.groups}[name]

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups that can shrink."""
        return tuple(group for group in self.groups if group.fixed is None)

    def kept(self, removal: Removal) -> dict[str, tuple[torch.Tensor | None, ...]]:
        """Return which indices stay, by node name and dimension: ``bool[n]``, or None where all do."""
        stays = self._stays(removal)
        return {node: tuple(_mask(stays, units) for units in dims) for node, dims in self.units.items()}

    def shapes(self, removal: Removal) -> dict[str, tuple[int, ...]]:
        """Return the shape of every node's value after a removal, by node name, without removing anything."""
        return {
            node: tuple(
                size if mask is None else int(mask.sum()) for size, mask in zip(self.sizes[node], masks, strict=True)
            )
            for node, masks in self.kept(removal).items()
        }

    def _stays(self, removal: Removal) -> torch.Tensor:
        """Return whether each unit stays; the last element stands for -1."""
        stays = torch.ones(sum(group.size for group in self.free) + 1, dtype=torch.bool)
        start = 0
        for group in self.free:
            gone = {int(unit) for unit in removal.get(group.name, ())}
            if len(gone) >= group.size or not gone <= set(range(group.size)):
                raise UsageError(
                    f"cannot remove {len(gone)} units of '{group.name}'",
                    why=f"it has the units 0 to {group.size - 1}, and at least one must stay",
                )
            stays[[start + unit for unit in gone]] = False
            start += group.size
        if unknown := removal.keys() - {group.name for group in self.free}:
            raise UsageError(f"there is no group of channels '{min(unknown)}' that can shrink")
        return stays


def _mask(stays: torch.Tensor, units: torch.Tensor | None) -> torch.Tensor | None:
    if units is None:
        return None
    mask = stays[units]
    return None if bool(mask.all()) else mask


def channel_groups(model: Model, *, heads: bool = False) -> Channels:
    """Find the groups of a model: labels are sent through its graph, and what they unite goes together.

    Attention heads become narrower, all by the same channels; with ``heads`` they keep their width and go as a whole.
    """
    from lvc.passes.analysis.channels.flow import propagate
    from lvc.passes.analysis.channels.grouping import group

    return group(model, propagate(model, heads))


def findings(model: Model) -> Findings:
    """The groups of a model as a table."""
    from lvc.passes.analysis.channels.description import describe

    return describe(model, channel_groups(model))
