"""The inputs and outputs of a model: their names and specs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.spec import TensorSpec


@dataclass(frozen=True)
class Value:
    """A named input or output of a model."""

    name: str
    spec: TensorSpec

    def __str__(self) -> str:
        return f"{self.name}: {self.spec}"


def check_inputs(expected: Sequence[Value], given: Sequence[TensorSpec]) -> None:
    """Raise `UsageError` if the given inputs do not fit a signature."""
    if len(expected) != len(given):
        names = ", ".join(map(str, expected))
        raise UsageError(f"the model takes {len(expected)} input(s), {len(given)} given", why=f"inputs are: {names}")
    for value, found in zip(expected, given, strict=True):
        if value.spec != found:
            raise UsageError(f"input '{value.name}' must be {value.spec}, not {found}")
