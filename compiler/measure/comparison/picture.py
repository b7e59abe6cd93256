"""What each layer adds to the error, as a picture: a row a layer, in the order of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lvc.compiler.measure.comparison.layerwise import LayerError
from lvc.compiler.measure.pictures.canvas import Head
from lvc.compiler.measure.pictures.dots import Dots, Row
from lvc.compiler.text import counted

ORDERS = {
    "adds": "worst first by what a layer adds",
    "leaves": "worst first by what a layer leaves",
    "place": "in the order of the model",
}
_SERIES = {
    "adds": "adds: its own error",
    "arrives": "arrives: the error of what it reads",
    "leaves": "leaves: the error of what it gives",
}
MOST = 60
"""Rows that a picture has if nobody asks for fewer."""


def layer_picture(model: str, layers: Sequence[LayerError], order: str, images: int, most: int = MOST) -> Dots:
    """Draw the first layers of all; the figures of that by which they are sorted stand beside them."""
    shown = layers[:most]
    rows = [Row(layer.title, [_figures(layer)]) for layer in shown]
    series = {name: text for name, text in _SERIES.items() if any(name in row.panels[0] for row in rows)}
    first = "leaves" if order == "leaves" or "adds" not in series else "adds"
    count = counted(len(layers), "layer")
    if len(shown) < len(layers):
        count = f"the first {len(shown)} of {count}"
    has_edges = any(math.isinf(value) for row in rows for value in row.panels[0].values())
    return Dots(
        Head(
            f"{model}: how far each quantised layer is from floating point",
            f"{count}, {ORDERS[order]}; {counted(images, 'image')}. Further right is better, 6 dB are one bit."
            + " Hollow at the edge: exact, or lost." * has_edges,
        ),
        "signal-to-noise ratio against floating point, dB",
        [""],
        rows,
        dict(sorted(series.items(), key=lambda item: item[0] != first)),
        written=first,
        edges=("lost", "exact"),
    )


def _figures(layer: LayerError) -> dict[str, float]:
    figures = {name: getattr(layer, name) for name in _SERIES}
    return {name: value for name, value in figures.items() if value is not None}
