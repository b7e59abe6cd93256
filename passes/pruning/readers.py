"""Layers that read the channels of a group, as matrices: what they lose when units go, and how far the rest make up.

A layer reads rows ``x`` (see `layer_rows`) and gives ``W x``. The best weights without the columns of some units, and
how much worse they are, follow from the second moments of ``x`` alone: ``y = W x`` brings nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from lvc.compiler.ir.graph import arguments, is_call, spec
from lvc.compiler.ir.layers import MATRIX_LAYERS, group_count
from lvc.passes.pruning.edges import Edge
from lvc.passes.pruning.least_squares import MOST_COLUMNS


@dataclass(frozen=True)
class Reader:
    """One edge, or one group of channels of a grouped convolution at an edge.

    ``weight`` is ``f64[outputs, columns]``, ``units`` the unit of each column or -1, ``outputs`` and ``columns`` the
    slices of the layer's output and of its rows that the reader stands for.
    """

    layer: Node
    weight: torch.Tensor
    units: torch.Tensor
    outputs: slice
    columns: slice


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
            slice(group * read, (group + 1) * read),
        )
        for group in range(groups)
    ]


def check_layer(layer: Node) -> str | None:
    """Why a layer's weights cannot be fitted by least squares; None if they can."""
    if not is_call(layer, *MATRIX_LAYERS):
        return "it is no convolution or linear layer"
    weight = arguments(layer)["weight"]
    if weight.op != "get_attr":
        return "its weight is computed in the graph"
    if len(weight.users) > 1:
        return f"its weight is shared by {len(weight.users)} layers"
    columns = spec(weight).elements // spec(weight).shape[0]
    if columns > MOST_COLUMNS:
        return f"it sums {columns} products, and at most {MOST_COLUMNS} are fitted"
    return None


def rows_wanted(layer: Node, batches: int) -> int:
    """Return how many rows of each batch are enough to know a layer's second moments."""
    weight = spec(arguments(layer)["weight"])
    return -(-(16384 + 4 * weight.elements // weight.shape[0]) // batches)
