"""Kernels put into a program one after the other, each with its arguments; what they read is said by whoever emits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Place, Program, Step, Storage
from lvc.backends.tvm.scope import Constant, Parameter, Prepared, Shared


@dataclass(frozen=True)
class MadeValue:
    """A value in one layout: where it lies, and its name among those of the program."""

    place: Place
    name: str


Read = Callable[[Node, tuple[int, ...], str], MadeValue]
"""Where the value of a node lies, that a kernel reads as a tensor of a shape and a type."""


class Emitter:
    """A program under construction, with the stored tensors that its kernels read.

    ``stored`` has them by their keys, which are those of one graph; ``held`` by what they hold, so that the graph for
    other shapes, an emitter ``beside`` the first, finds those that are alike.
    """

    def __init__(self, beside: Emitter | None = None) -> None:
        self.program = Program()
        self.stored: dict[str, Place] = {}
        self.held: dict[object, Place] = {}
        if beside:
            self.held = beside.held
            self.program.constants, self.program.setup = beside.program.constants, beside.program.setup

    def emit(self, kernel: Kernel, name: str, nodes: list[str], read: Read, made: MadeValue) -> None:
        """Add the step that runs a kernel, which makes a value."""
        arguments = []
        for parameter in kernel.parameters:
            source, (size, dtype) = parameter.source, type_of(parameter.tensor)
            if isinstance(source, Prepared | Constant):
                arguments.append(self.constant(parameter, nodes))
                continue
            if isinstance(source, Shared):
                where = Place(Storage(Kind.WORKSPACE, math.prod(size) * ITEM_BYTES[dtype], is_scratch=True))
                arguments.append(Argument(where, size, dtype, f"scratch {len(arguments)}"))
            else:
                found = read(source, size, dtype)
                arguments.append(Argument(found.place, size, dtype, found.name))
        arguments.append(Argument(made.place, *type_of(kernel.result), made.name))
        self.program.steps.append(Step(name, tuple(nodes), kernel.function, kernel.schedule, tuple(arguments)))

    def store(self, constant: Constant) -> Place:
        """Where a stored tensor lies; each form of it is kept once."""
        if constant.key not in self.stored:
            values = np.ascontiguousarray(constant.pack())
            held = hashlib.sha256(values.reshape(-1).view(np.uint8).data).digest()
            if held not in self.held:
                storage = Storage(Kind.CONSTANT, max(1, values.nbytes))
                self.program.constants.append((storage, values))
                self.held[held] = Place(storage)
            self.stored[constant.key] = self.held[held]
        return self.stored[constant.key]

    def constant(self, parameter: Parameter, nodes: list[str]) -> Argument:
        """A stored tensor, or one that setup makes, as an argument."""
        source, (shape, dtype) = parameter.source, type_of(parameter.tensor)
        if isinstance(source, Constant):
            return Argument(self.store(source), shape, dtype)
        assert isinstance(source, Prepared)
        return Argument(self.prepare(source, nodes, shape, dtype), shape, dtype)

    def prepare(self, constant: Prepared, nodes: list[str], shape: tuple[int, ...], dtype: str) -> Place:
        """Where a constant lies that setup makes; equal ones are made once."""
        if constant.key not in self.stored:
            sources = [self.constant(source, nodes) for source in constant.sources]
            held = (constant.function.script(), str(constant.schedule), *(source.place for source in sources))
            if held not in self.held:
                made = Argument(Place(Storage(Kind.CONSTANT, math.prod(shape) * ITEM_BYTES[dtype])), shape, dtype)
                step = Step(nodes[0], tuple(nodes), constant.function, constant.schedule, (*sources, made))
                self.program.setup.append(step)
                self.held[held] = made.place
            self.stored[constant.key] = self.held[held]
        return self.stored[constant.key]


def type_of(tensor: Any) -> tuple[tuple[int, ...], str]:
    """Shape and element type of a TE tensor."""
    return tuple(int(size) for size in tensor.shape), str(tensor.dtype)
