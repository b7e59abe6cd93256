"""Weights that lie on levels of a weight grid, with whole numbers for values wherever that is possible.

Then an integer kernel multiplies by the values, whatever lies between them.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from lvc.compiler.ir.graph import add_tensor
from lvc.compiler.ir.operators.levels import FAKE_QUANTIZE_LEVELS
from lvc.compiler.ir.operators.uncalibrated import UNCALIBRATED
from lvc.passes.quantisation.grids import GridKind
from lvc.passes.quantisation.weight_grid import WEIGHT_GRIDS, Levels, grouped


def stored_levels(kind: GridKind, weight: torch.Tensor) -> Levels:
    """Return the levels for a weight ``[O, ...]``; the scale is ``f32[O, groups]``."""
    rows = weight.detach().float().reshape(1, -1) if kind.axis is None else grouped(weight, kind.channels)
    levels = WEIGHT_GRIDS.parse(kind.scale).fit(rows, kind.bits).whole()
    scale = levels.scale.expand(len(weight)) if kind.axis is None else levels.scale
    return Levels(levels.values, scale.reshape(len(weight), -1).contiguous())


def replace_by_levels(module: GraphModule, place: Node, levels: Levels) -> None:
    """Put the fake quantisation on levels in the stead of a `lvc::uncalibrated` call, under its name."""
    assert place.target is UNCALIBRATED
    values = add_tensor(module, place, f"{place.name}_values", levels.values, trainable=False)
    scale = add_tensor(module, place, f"{place.name}_scale", levels.scale, trainable=False)
    place.args = (place.args[0], values, scale)
    place.target = FAKE_QUANTIZE_LEVELS
