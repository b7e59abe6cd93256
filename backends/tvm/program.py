"""A lowered model: kernels in order, and where each of their arguments lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

ScheduleFunction = Callable[[Any, Any], None]  # TVM's schedule, and what the code generator knows of the target


@dataclass(frozen=True)
class AsWritten:
    """The schedule of a function whose loops are already those that shall run."""

    def __call__(self, schedule: Any, target: Any) -> None:
        """Leave the function as it is."""


_BYTE = {"int8": 1, "uint8": 1, "bool": 1}
ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "uint16": 2, **_BYTE}


class Kind(Enum):
    """What memory a storage is in."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    WORKSPACE = "workspace"


@dataclass(eq=False)
class Storage:
    """A piece of memory. ``position`` is that of the input or output; the others get theirs when memory is planned.

    What ``is_scratch`` holds no value when the step that uses it is done.
    """

    kind: Kind
    bytes: int
    position: int = 0
    is_scratch: bool = False


@dataclass(frozen=True)
class Place:
    """Where a value begins: a storage and an offset in bytes."""

    storage: Storage
    offset: int = 0


@dataclass(frozen=True)
class Bytes:
    """The bytes of a value from ``begin`` to ``end``."""

    value: str
    begin: int
    end: int

    def cut(self, begin: int, end: int) -> Bytes:
        """Those from ``begin`` to ``end``, counted within these."""
        return replace(self, begin=self.begin + begin, end=self.begin + end)


Contents = tuple[Bytes, ...]
"""Bytes one after the other."""


def joined(parts: Iterable[Bytes]) -> Contents:
    """The same bytes with those in one piece that follow each other in their value."""
    found: list[Bytes] = []
    for part in parts:
        if found and found[-1].value == part.value and found[-1].end == part.begin:
            found[-1] = replace(found[-1], end=part.end)
        elif part.begin < part.end:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True)
class Argument:
    """A tensor that a kernel is called with; ``shape`` is that in memory.

    ``value`` names what it holds, equal names for equal bytes; empty for what no step of the program makes.
    """

    place: Place
    shape: tuple[int, ...]
    dtype: str
    value: str = ""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Step:
    """One kernel call: inputs, then the one output. ``function`` is the kernel before ``schedule`` is applied."""

    name: str
    nodes: tuple[str, ...]
    function: Any
    schedule: ScheduleFunction
    arguments: tuple[Argument, ...]


@dataclass
class Program:
    """All steps, the storages that they use, and the stored tensors by storage.

    ``contents`` says of which other values a value consists that no kernel makes: views and concatenations in place.

    ``setup`` runs once, when the program is loaded: it reads stored tensors and makes constants of them that are too
    large to be stored. Every call reads them, none writes them.

    ``others`` are the same model for other shapes: programs with the constants and the setup of this one, which run in
    its workspace.
    """

    inputs: list[Argument] = field(default_factory=list)
    outputs: list[Argument] = field(default_factory=list)
    setup: list[Step] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    constants: list[tuple[Storage, np.ndarray]] = field(default_factory=list)
    contents: dict[str, Contents] = field(default_factory=dict)
    others: list[Program] = field(default_factory=list)

    @property
    def variants(self) -> tuple[Program, ...]:
        """The program for each of the shapes that it was made for, itself first."""
        return (self, *self.others)

    def stored(self) -> set[Storage]:
        """The stored tensors that a run reads, or that setup makes of what it reads."""
        made = {step.arguments[-1].place.storage: step.arguments[:-1] for step in self.setup}
        found: set[Storage] = set()
        left = [argument for step in self.steps for argument in step.arguments]
        while left:
            storage = left.pop().place.storage
            if storage.kind is Kind.CONSTANT and storage not in found:
                found.add(storage)
                left.extend(made.get(storage, ()))
        return found - made.keys()

    @property
    def called(self) -> list[Step]:
        """All steps: those of setup, then those of each variant."""
        return [*self.setup, *(step for variant in self.variants for step in variant.steps)]
