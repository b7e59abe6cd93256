"""An ONNX graph while it is written: nodes with awkward names, constants in both of their forms."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuzzing.program import Program, Ref, Step
from lvc.compiler.ir.spec import TensorSpec

KEYWORDS = (
    "class",
    "def",
    "lambda",
    "None",
    "self",
    "torch",
    "for",
    "import",
    "inf",
    "x0",
    "out0",
    "v0",
    "in",
    "nan",
    "device",
)
FORMS = (
    "/layer.{}/conv/Conv_output_0",
    "{}",
    "t{}:0",
    "onnx::Relu_{}",
    "a-b.{}",
    "{}_x",
    "input.{}",
    "wörter {}",
    "W{}",
)


class Unspeakable(Exception):
    """This opset has no operator for a call as it stands."""


@dataclass(frozen=True)
class Entry:
    """One node: empty names stand for operands that are left out and results that nobody wants."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class Writer:
    """Nodes and constants so far; ``names`` are those of the program's values in the file."""

    program: Program
    opset: int
    specs: dict[str, TensorSpec]
    random: random.Random
    nodes: list[Entry] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def fresh(self) -> str:
        """A name that is not taken, of a form that tools stumble over."""
        while True:
            form = self.random.choice((*FORMS, *KEYWORDS) if self.random.random() < 0.3 else FORMS)
            name = form.format(len(self.taken))
            if name not in self.taken:
                self.taken.add(name)
                return name

    def need(self, opset: int) -> None:
        if self.opset < opset:
            raise Unspeakable(f"only from opset {opset} on")

    def emit(self, op: str, *inputs: str, results: int = 1, **attributes: Any) -> str:
        """Add a node; the name of its first result. Operands that are left out at the end are not written."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        outputs = tuple(self.fresh() for _ in range(results))
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(Entry(op, inputs, outputs, kept))
        return outputs[0]

    def parts(self, op: str, *inputs: str, results: int, **attributes: Any) -> tuple[str, ...]:
        self.emit(op, *inputs, results=results, **attributes)
        return self.nodes[-1].outputs

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """The name of a constant: an initialiser, or what a node of its own makes."""
        array: np.ndarray = np.asarray(value, dtype)
        if self.random.random() < 0.25:
            return self.emit("Constant", value=array)
        name = self.fresh()
        self.constants[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def name(self, value: Any) -> str:
        """The name of an operand; empty for None."""
        return self.names[value.name] if isinstance(value, Ref) else "" if value is None else self.constant(value)

    def shape(self, value: Ref | Step) -> tuple[int, ...]:
        return self.specs[value.name].shape

    def stored(self, value: Any) -> bool:
        return isinstance(value, Ref) and value.name in self.program.stored

    def axes(self, op: str, x: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """A node whose axes are an operand since an opset, and an attribute before."""
        if self.opset >= since:
            return self.emit(op, x, self.ints(*axes), **attributes)
        return self.emit(op, x, axes=list(axes), **attributes)
