"""Layers that read the channels of a group, as matrices: what they lose when units go, and how far the rest make up.

A layer reads rows ``x`` (see `layer_rows`) and gives ``W x``. The best weights without the columns of some units, and
how much worse they are, follow from the second moments of ``x`` alone: ``y = W x`` brings nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.layers import group_count
from lvc.passes.fitting.layers import check_layer
from lvc.passes.pruning.edges import Edge


@dataclass(frozen=True)
class Reader:
    """One edge, or one group of channels of a grouped convolution at an edge.

    ``weight`` is ``f64[outputs, columns]``, ``units`` the unit of each column or -1, ``outputs`` the slice of the
    layer's output that the reader stands for, ``group`` the place of its group of channels.
    """

    layer: Node
    weight: torch.Tensor
    units: torch.Tensor
    outputs: slice
    group: int


def readers_of(edge: Edge, weight: torch.Tensor) -> list[Reader]:
    """Return a layer as matrices, one for each of its groups of channels; none for what is no such product."""
    if check_layer(edge.layer) is not None:
        return []
    groups = group_count(edge.layer)
    matrix = weight.flatten(1).double()
    made, read = matrix.shape[0] // groups, matrix.shape[1]
    units = edge.member.units.repeat_interleave(read // len(edge.member.units))
    return [
        Reader(
            edge.layer,
            matrix[group * made : (group + 1) * made],
            units,
            slice(group * made, (group + 1) * made),
            group,
        )
        for group in range(groups)
    ]
