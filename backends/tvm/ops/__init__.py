"""How each operator of the dialect is computed: one table, keyed by operator."""

from lvc.backends.tvm.ops import (
    contractions,
    decode,
    dynamic,
    elementwise,
    functions,
    heatmaps,
    integer,
    movement,
    normalisation,
    ordering,
    reductions,
    regions,
    sampling,
    suppression,
    windows,
)

__all__ = [
    "contractions",
    "decode",
    "dynamic",
    "elementwise",
    "functions",
    "heatmaps",
    "integer",
    "movement",
    "normalisation",
    "ordering",
    "reductions",
    "regions",
    "sampling",
    "suppression",
    "windows",
]
