"""What to load and how, in one value that can be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model


@dataclass(frozen=True)
class LoadRequest:
    """What to load and how; stored in the artefact, so that a later command can load the same model again."""

    source: str
    weights: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0
    trust: bool = False
    """Of a command, and never stored: what an artefact says of its source is nobody's word."""

    def load(self) -> Model:
        from lvc.compiler.load import load as load_model

        return load_model(
            self.source,
            weights=Path(self.weights) if self.weights else None,
            arguments=self.arguments,
            shapes=self.shapes,
            seed=self.seed,
            trust=self.trust,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "weights": self.weights,
            "arguments": dict(self.arguments),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "seed": self.seed,
        }
