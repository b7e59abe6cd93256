"""How each operator of the dialect is written as ONNX: one function an operator, by family.

A writer adds ONNX nodes to the graph and returns the name of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch._ops import OpOverload
from torch.fx import Node

from lvc.backends.onnx.operators import (
    contraction,
    elementwise,
    heatmaps,
    integer,
    movement,
    normalisation,
    ordering,
    pooling,
    quantisation,
    reduction,
    resampling,
)
from lvc.backends.onnx.writer import GraphWriter

Writer = Callable[[GraphWriter, Node], str]

WRITERS: Mapping[OpOverload, Writer] = {
    **contraction.WRITERS,
    **elementwise.WRITERS,
    **movement.WRITERS,
    **pooling.WRITERS,
    **reduction.WRITERS,
    **normalisation.WRITERS,
    **resampling.WRITERS,
    **quantisation.WRITERS,
    **integer.WRITERS,
    **ordering.WRITERS,
    **heatmaps.WRITERS,
}
