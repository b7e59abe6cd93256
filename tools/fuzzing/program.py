"""The description of a random model, from which each importer's form of it is made.

A `Program` is a list of calls of the dialect's operators. Stored tensors and inputs have no values of their own: `draw`
makes them from their names, so that a description is small and a script can make them again.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fuzzing.composites import function, named
from lvc.compiler.ir.dialect import BY_NAME
from lvc.compiler.ir.spec import TensorSpec, dtype_name


@dataclass(frozen=True)
class Ref:
    """A value of the program as an operand: an input, a stored tensor or the result of a step."""

    name: str


@dataclass(frozen=True)
class Step:
    """One call. ``hint`` says how an importer may spell it otherwise; what it computes does not depend on that."""

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    hint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operands(self) -> list[str]:
        return [ref.name for ref in refs((self.args, tuple(self.kwargs.values())))]


@dataclass(frozen=True)
class Program:
    """Inputs and stored tensors by name, steps in order, and the names of the values that are outputs."""

    inputs: Mapping[str, TensorSpec]
    stored: Mapping[str, TensorSpec]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def pruned(self) -> Program:
        """The same without what no output depends on; one input stays in any case."""
        live, steps = set(self.outputs), []
        for step in reversed(self.steps):
            if step.name in live:
                steps.append(step)
                live.update(step.operands)
        inputs = {name: spec for name, spec in self.inputs.items() if name in live}
        return dataclasses.replace(
            self,
            inputs=inputs or dict(list(self.inputs.items())[:1]),
            stored={name: spec for name, spec in self.stored.items() if name in live},
            steps=tuple(reversed(steps)),
        )

    def specs(self) -> dict[str, TensorSpec]:
        """The type of every value; raises what PyTorch raises for a call that cannot be made."""
        known = {**self.inputs, **self.stored}
        for step in self.steps:
            known[step.name] = infer(step, known)
        return known

    def __str__(self) -> str:
        """The text that `lvc.compiler.ir.graph_text.parse_model` reads."""
        ins = ", ".join(f"{name}: {spec}" for name, spec in self.inputs.items())
        lines = [f"model fuzz({ins})", *(f"  @{name} : {spec}" for name, spec in self.stored.items())]
        lines += [f"  %{step.name} = {step.op}({self._arguments(step)})" for step in self.steps]
        outs = ", ".join(f"out{i}={self._text(Ref(name))}" for i, name in enumerate(self.outputs))
        return "\n".join([*lines, f"  return {outs}"])

    def _arguments(self, step: Step) -> str:
        named = (f"{key}={self._text(value)}" for key, value in step.kwargs.items())
        return ", ".join([*map(self._text, step.args), *named])

    def _text(self, value: Any) -> str:
        if isinstance(value, Ref):
            return f"{'@' if value.name in self.stored else '%'}{value.name}"
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, torch.dtype):
            return dtype_name(value)
        return f'"{value}"' if isinstance(value, str) else str(value)


def refs(value: Any) -> Iterator[Ref]:
    """Every operand in a nest of arguments."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from refs(part)


def bind(value: Any, known: Mapping[str, Any]) -> Any:
    """A nest of arguments with what is ``known`` in the place of its operands."""
    if isinstance(value, Ref):
        return known[value.name]
    return [bind(part, known) for part in value] if isinstance(value, list | tuple) else value


def renamed(step: Step, names: Mapping[str, str]) -> Step:
    """The same call on other operands."""
    known = {name: Ref(names.get(name, name)) for name in step.operands}
    kwargs = {key: bind(value, known) for key, value in step.kwargs.items()}
    return dataclasses.replace(step, args=tuple(bind(list(step.args), known)), kwargs=kwargs)


def infer(step: Step, known: Mapping[str, TensorSpec]) -> TensorSpec:
    """The type of a step's result, by PyTorch without data."""
    empty = {name: torch.empty(known[name].shape, dtype=known[name].dtype, device="meta") for name in step.operands}
    kwargs = {key: bind(value, empty) for key, value in step.kwargs.items()}
    return TensorSpec.of(function(step.op)(*bind(list(step.args), empty), **kwargs))


def arguments(step: Step) -> dict[str, Any]:
    """A call's arguments by name, defaults filled in."""
    if step.op not in BY_NAME:
        return named(step.op, step.args)
    schema = BY_NAME[step.op].overload._schema.arguments
    given = dict(zip((argument.name for argument in schema), step.args, strict=False)) | dict(step.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def bind_all(step: Step, known: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, with what is ``known`` in the place of its operands."""
    return {name: bind(value, known) for name, value in arguments(step).items()}


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """The values of a stored tensor: what its name up to the first ``_`` says, random by the whole name.

    ``weight`` is scaled so that sums keep the size of their terms, ``var`` and ``gamma`` lie from 0.5 to 1.5,
    ``indexN`` are integers below N, ``orderN`` some of them without one twice, ``corners`` two corners of
    boxes; others are normal. A ``twin_`` has the values of what it is a twin of.
    """
    name = name.removeprefix("twin_")
    random = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.partition("_")[0]
    if kind.startswith("index"):
        return np.asarray(random.integers(0, int(kind[5:]), tuple(shape)))
    if kind.startswith("order"):
        return random.permutation(int(kind[5:]))[: int(np.prod(shape))].reshape(tuple(shape))
    if kind == "corners":
        first, size = random.random((2, *shape[:-1], 2)) * 8
        return np.asarray(np.concatenate([first, first + size], -1), np.float32)
    if kind in ("var", "gamma"):
        return (random.random(tuple(shape)) + 0.5).astype(np.float32)
    scale = float(np.prod(shape[1:])) ** -0.5 if kind == "weight" else 1.0
    return np.asarray(scale * random.standard_normal(tuple(shape)), np.float32)


def draw_stored(program: Program) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(draw(name, spec.shape)) for name, spec in program.stored.items()}


def draw_inputs(specs: Iterable[TensorSpec], kind: str, seed: int) -> list[np.ndarray]:
    """Inputs that look ``normal``, like an image from 0 to 1 (``unit``), or from 0 to 255 in integers (``bytes``).

    Whole-number inputs are 0 or 1.
    """
    random, arrays = np.random.default_rng(seed), []
    array: np.ndarray
    for spec in specs:
        if not spec.dtype.is_floating_point:
            array = random.integers(0, 2, spec.shape)
        elif kind == "bytes":
            array = random.integers(0, 256, spec.shape)
        else:
            array = random.random(spec.shape) if kind == "unit" else random.standard_normal(spec.shape)
        arrays.append(torch.from_numpy(np.asarray(array)).to(spec.dtype).numpy())
    return arrays
