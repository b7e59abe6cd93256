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


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def fits(self, given: Sequence[TensorSpec]) -> bool:
        """Whether it takes values of these types and shapes."""
        return [value.spec for value in self.inputs] == list(given)

    def to_json(self) -> dict[str, list[list[str]]]:
        """Pairs of names and specs, by side."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        return {side: [[value.name, str(value.spec)] for value in values] for side, values in sides.items()}

    def shapes(self) -> str:
        """The shapes of its inputs, as text."""
        return ", ".join("x".join(map(str, value.spec.shape)) or "scalar" for value in self.inputs)


def signature_of(signatures: Sequence[Signature], given: Sequence[TensorSpec]) -> Signature:
    """The first of some signatures that the given inputs fit; `UsageError` if there is none."""
    first, *others = signatures
    if (found := next((one for one in signatures if one.fits(given)), None)) is not None:
        return found
    try:
        check_inputs(first.inputs, given)
    except UsageError as error:
        if others:
            shapes = " or ".join(one.shapes() for one in others)
            raise UsageError(error.what, why=error.why or f"the model was built for {shapes} as well") from error
        raise
    return first


def check_inputs(expected: Sequence[Value], given: Sequence[TensorSpec]) -> None:
    """Raise `UsageError` if the given inputs do not fit a signature."""
    if len(expected) != len(given):
        names = ", ".join(map(str, expected))
        raise UsageError(f"the model takes {len(expected)} input(s), {len(given)} given", why=f"inputs are: {names}")
    for value, found in zip(expected, given, strict=True):
        if value.spec != found:
            raise UsageError(f"input '{value.name}' must be {value.spec}, not {found}")
