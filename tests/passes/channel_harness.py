"""What tests of channel groups share: small models, index maps as plain data, and a removal with all its checks."""

from __future__ import annotations

import torch

from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.graph_text import parse_model
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.passes.analysis.channel_groups import Channels, Removal, channel_groups
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.surgery import remove


def made(text: str) -> Model:
    """A model over an image of 3 channels, given its weights and calls."""
    return parse_model(f"model m(x: f32[2,3,8,8])\n{text}")


def units(channels: Channels, group: str) -> dict[str, list[int]]:
    """The unit of every index of a group's stored tensors, by tensor and dimension."""
    return {f"{member.tensor}:{member.dim}": member.units.tolist() for member in channels[group].members}


def alike(wanted: list[int], *places: str) -> dict[str, list[int]]:
    return dict.fromkeys(places, wanted)


def pruned(model: Model, removal: Removal) -> Model:
    """Remove units and check everything that can be checked."""
    channels = channel_groups(model)
    after = model.copy()
    changed = remove(after, channels, removal)
    verify(after)
    assert bool(changed) == any(len(gone) for gone in removal.values())
    shapes = channels.shapes(removal)
    assert all(spec(node).shape == shapes[node.name] for node in after.module.graph.nodes if node.op != "output")
    check_removal(model, after, channels, removal)
    assert max(float(abs(out).max()) for out in after(*[torch.randn(v.spec.shape) for v in after.inputs])) > 0
    return after


def shape(model: Model, name: str) -> tuple[int, ...]:
    return next(spec(node).shape for node in model.module.graph.nodes if name in (node.name, node.target))
