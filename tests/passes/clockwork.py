"""A stopwatch whose seconds follow from counts, so that what is measured is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvc.compiler.ir.model import Model
from lvc.compiler.measure.inspection import layers
from lvc.compiler.pipeline.workspace import Race


@dataclass(frozen=True)
class Watch:
    """It takes one second for each million multiply-accumulates."""

    name: ClassVar[str] = "clockwork"
    channel_multiple: int = 4

    def layers(self, model: Model) -> dict[str, float]:
        found: dict[str, float] = {}
        for layer in layers(model):
            found[layer.origin] = found.get(layer.origin, 0.0) + layer.macs / 1e6
        return found

    def compare(self, model: Model, with_model: Model) -> Race:
        mine, other = (sum(self.layers(one).values()) for one in (model, with_model))
        return Race(mine, other, mine / other)
