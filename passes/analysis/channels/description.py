"""Groups of channels in words and numbers, as `lvc inspect --groups` shows them."""

from __future__ import annotations

from typing import Any

import torch

from lvc.compiler.ir.graph import calls, origin, spec
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.analysis import Findings
from lvc.compiler.pipeline.passes import Table
from lvc.compiler.text import si
from lvc.passes.analysis.channel_groups import ChannelGroup, Channels, Member

_NAMED_LAYERS = 3


def describe(model: Model, channels: Channels) -> Findings:
    """Say which groups there are, what each consists of, and why some stay."""
    origins = {node.name: origin(node) for node in calls(model.module.graph)}
    shapes = {str(node.target): spec(node).shape for node in model.module.graph.nodes if node.op == "get_attr"}
    elements = [_elements(group, shapes) for group in channels]
    rows = tuple(
        (group.name, group.size, _indices(group.producers[0]), si(count), _layers(group, origins), group.fixed or "")
        for group, count in zip(channels, elements, strict=True)
    )
    headers = ("group", "units", "channels", "parameters", "produced by", "stays, because")
    units = sum(group.size for group in channels.free)
    note = f"{len(channels.free)} of {len(channels.groups)} groups can shrink: {units} units"
    data = [_to_json(group, count, origins) for group, count in zip(channels, elements, strict=True)]
    return Findings((Table("groups of channels", headers, rows),), (note,), data)


def _layers(group: ChannelGroup, origins: dict[str, str]) -> str:
    names = list(dict.fromkeys(origins[member.layer] for member in group.producers))
    more = len(names) - _NAMED_LAYERS
    return ", ".join(names[:_NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")


def _indices(member: Member) -> int:
    return int((member.units >= 0).sum())


def _elements(group: ChannelGroup, shapes: dict[str, tuple[int, ...]]) -> int:
    """Return how many stored elements belong to a group; one that does so by two dimensions counts once."""
    masks: dict[str, dict[int, torch.Tensor]] = {}
    for member in group.members:
        masks.setdefault(member.tensor, {})[member.dim] = member.units >= 0
    count = 0
    for name, dims in masks.items():
        total = outside = 1
        for dim, size in enumerate(shapes[name]):
            total *= size
            outside *= int((~dims[dim]).sum()) if dim in dims else size
        count += total - outside
    return count


def _to_json(group: ChannelGroup, elements: int, origins: dict[str, str]) -> dict[str, Any]:
    return {
        "name": group.name,
        "units": group.size,
        "parameters": elements,
        "fixed": group.fixed,
        "members": [
            {
                "tensor": member.tensor,
                "dim": member.dim,
                "role": member.role.value,
                "layer": origins[member.layer],
                "units": member.units.tolist(),
            }
            for member in group.members
        ],
    }
