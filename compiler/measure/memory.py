"""What a built model takes of memory: the account that a backend gives in an artefact's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lvc.compiler.artefact import Artefact


@dataclass(frozen=True)
class Memory:
    """Bytes. ``weights`` are those in the artefact, ``prepared`` those made from them when it is loaded.

    ``workspace`` holds the intermediate results of one call, ``scratch`` the buffers that kernels use within a step,
    for each thread; ``external`` are inputs and outputs. ``live`` is what no plan of the workspace can undercut: the
    most bytes of intermediate results that are still to be read after some step.
    """

    weights: int
    prepared: int
    workspace: int
    scratch: int
    external: int
    live: int

    def activations(self, threads: int = 1) -> int:
        """What a call needs beside its inputs and outputs."""
        return self.workspace + threads * self.scratch

    def overhead(self, threads: int = 1) -> float:
        """The activations in parts of what is alive at once."""
        return self.activations(threads) / max(1, self.live)

    def peak(self, threads: int = 1) -> int:
        """All that is there during a call, code apart."""
        return self.weights + self.prepared + self.external + self.activations(threads)

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Memory:
        """Read what `to_json` made; `ValueError` for anything else."""
        names = [field.name for field in fields(cls)]
        values = [data.get(name) for name in names]
        if any(type(value) is not int or value < 0 for value in values):
            raise ValueError("an account of memory is made of integers")
        return cls(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]


def memory_of(artefact: Artefact) -> Memory | None:
    """The account that an artefact gives of itself; None if there is none, or none that makes sense."""
    stored = artefact.metadata.get("memory")
    try:
        return Memory.from_json(stored) if isinstance(stored, Mapping) else None
    except ValueError:
        return None
