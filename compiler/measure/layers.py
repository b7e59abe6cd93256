"""One layer as it is told of: its output, stored elements, work and memory, in numbers and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lvc.compiler.text import title


@dataclass(frozen=True)
class Layer:
    """One operator call. ``output`` is its spec as text; a tensor that several calls read counts for the first."""

    node: str
    op: str
    origin: str
    output: str
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    group: str = ""

    @property
    def title(self) -> str:
        """The user's name of it."""
        return title(self.origin) or self.node

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        """Read what `to_json` made; `ValueError` for anything else."""
        fields = {name: data.get(name, "") for name in cls.__dataclass_fields__}
        counts = ("parameters", "macs", "weight_bytes", "activation_bytes")
        for name, value in fields.items():
            if type(value) is not (int if name in counts else str):
                raise ValueError(f"'{name}' of a layer is {type(value).__name__}")
        return cls(**fields)


@dataclass(frozen=True)
class Totals:
    """Sums over all layers, and the most bytes of intermediate results that are alive at once."""

    layers: int
    parameters: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int | None = None


def totals(found: Sequence[Layer], peak_activation_bytes: int | None = None) -> Totals:
    return Totals(
        layers=len(found),
        parameters=sum(layer.parameters for layer in found),
        macs=sum(layer.macs for layer in found),
        weight_bytes=sum(layer.weight_bytes for layer in found),
        peak_activation_bytes=peak_activation_bytes,
    )


def heaviest(found: Iterable[Layer], most: int) -> list[Layer]:
    """Return the layers with the most MACs, the heaviest first."""
    return sorted(found, key=lambda layer: -layer.macs)[:most]
