"""The plan of an artefact, as far as it is the same for every device; loading a model needs it, so nothing heavy."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from lvc.backends.tvm.program import ITEM_BYTES
from lvc.compiler.backend import Target
from lvc.compiler.errors import CompileError
from lvc.compiler.files import Content

PLAN, WEIGHTS = "plan.json", "weights.bin"
PLAN_VERSION = 4

T = TypeVar("T")
_VERSIONS = "the artefact was made by another version of lvc"


@dataclass(frozen=True)
class Tensor:
    """Shape and type of an input or output."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class PlannedStep:
    """The call of a kernel, and the nodes that it computes."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedVariant:
    """What a model takes and gives for some shapes of its inputs, and the steps between them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True)
class Plan:
    """What a runtime reads of a plan. ``checksums`` are the CRC-32 of the files that belong to it, by name; ``host`` is
    the kind of processor that runs its library.

    ``variants`` has at least one; the model is called as the first is, or as any other.
    """

    target: Target
    checksums: Mapping[str, int]
    setup: tuple[PlannedStep, ...]
    variants: tuple[PlannedVariant, ...]
    host: str

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.variants[0].inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.variants[0].outputs

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        return self.variants[0].steps

    def check_files(self, files: Mapping[str, Content]) -> None:
        """Raise `CompileError` unless all files are there, and those that were built with the plan."""
        if missing := sorted({PLAN, WEIGHTS, *self.checksums} - set(files)):
            raise CompileError("the artefact is incomplete", why="it lacks " + ", ".join(missing))
        for name, checksum in self.checksums.items():
            if zlib.crc32(files[name]) != checksum:
                raise CompileError("the artefact is damaged", why=f"its {name} is not the one that its plan is of")


def checksums(files: Mapping[str, Content]) -> dict[str, int]:
    """What tells the files of one model from those of another; a container's digests tell damage."""
    return {name: zlib.crc32(content) for name, content in sorted(files.items())}


def read_plan(files: Mapping[str, Content]) -> Plan:
    """Read the plan among an artefact's files; `CompileError` if there is none of this version, or it is damaged."""
    if PLAN not in files:
        raise CompileError("the artefact is incomplete", why=f"it lacks {PLAN}")
    try:
        data = json.loads(bytes(files[PLAN]))
    except (ValueError, RecursionError) as error:
        raise CompileError("the artefact is damaged", why=f"its plan is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("version") != PLAN_VERSION:
        raise CompileError(_VERSIONS, help="build it again")
    try:
        return _plan(data)
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError("the artefact is damaged", why=f"its plan is not as it should be: {error}") from error


def _plan(data: Mapping[str, Any]) -> Plan:
    text, kind, cpu = (_typed(str, data[name]) for name in ("target", "kind", "cpu"))
    features = frozenset(_typed(str, name) for name in _typed(list, data["features"]))
    known = {name: _typed(int, value) for name, value in _typed(dict, data["checksums"]).items()}
    setup = tuple(map(_step, _typed(list, data["setup"])))
    variants = tuple(map(_variant, [data, *_typed(list, data.get("variants", []))]))
    host = _typed(str, data.get("host", kind))
    return Plan(Target(text, "tvm", kind, cpu, features), known, setup, variants, host)


def _variant(item: Any) -> PlannedVariant:
    inputs, outputs = (tuple(map(_tensor, _typed(list, _typed(dict, item)[name]))) for name in ("inputs", "outputs"))
    return PlannedVariant(inputs, outputs, tuple(map(_step, _typed(list, item["steps"]))))


def _tensor(item: Any) -> Tensor:
    shape = tuple(_typed(int, size) for size in _typed(list, _typed(dict, item)["shape"]))
    dtype = _typed(str, item["dtype"])
    if dtype not in ITEM_BYTES or any(size < 0 for size in shape):
        raise ValueError(f"{dtype}{list(shape)} is no tensor")
    return Tensor(shape, np.dtype(dtype))


def _step(item: Any) -> PlannedStep:
    nodes = tuple(_typed(str, name) for name in _typed(list, _typed(dict, item)["nodes"]))
    return PlannedStep(_typed(str, item["name"]), nodes)


def _typed(kind: type[T], value: object) -> T:
    if type(value) is not kind:  # JSON's true is no integer
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value
