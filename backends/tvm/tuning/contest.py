"""Kernels for one unit of a model as a program: each a step that reads the same inputs and writes the one output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from torch.fx import Node

from lvc.backends.tvm.emitter import Emitter, MadeValue, type_of
from lvc.backends.tvm.kernel import Kernel
from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Place, Program, ScheduleFunction, Storage

_MADE = "made"


@dataclass(frozen=True)
class Again:
    """A schedule that is built once more beside itself."""

    schedule: ScheduleFunction

    def __call__(self, schedule: Any, target: Any) -> None:
        self.schedule(schedule, target)

    def __str__(self) -> str:
        return f"again {self.schedule}"


def again(kernel: Kernel) -> Kernel:
    """The same kernel, with code of its own."""
    return replace(kernel, schedule=Again(kernel.schedule))


def contest(kernels: Sequence[Kernel], *, in_one: bool = True) -> Program:
    """The program whose steps are these kernels, in order; with ``in_one`` they write one output, else one each."""
    emitter, places = Emitter(), dict[Node, MadeValue]()
    program = emitter.program

    def read(node: Node, shape: tuple[int, ...], dtype: str) -> MadeValue:
        if node not in places:
            storage = Storage(Kind.INPUT, prod(shape) * ITEM_BYTES[dtype], len(places))
            places[node] = MadeValue(Place(storage), node.name)
            program.inputs.append(Argument(Place(storage), shape, dtype, node.name))
        return places[node]

    shape, dtype = type_of(kernels[0].result)
    made = [
        Argument(Place(Storage(Kind.OUTPUT, prod(shape) * ITEM_BYTES[dtype], number)), shape, dtype, f"{_MADE}{number}")
        for number in range(1 if in_one else len(kernels))
    ]
    for number, kernel in enumerate(kernels):
        output = made[number % len(made)]
        emitter.emit(kernel, f"contestant {number}", ["contestant"], read, MadeValue(output.place, output.value))
    program.outputs.extend(made)
    return program


def random_inputs(program: Program, seed: int = 0) -> list[np.ndarray]:
    """Inputs for a program: normal numbers, those of bfloat16 as their bits, and integers of their whole range."""
    random = np.random.default_rng(seed)
    return [_random(random, argument) for argument in program.inputs]


def _random(random: np.random.Generator, argument: Argument) -> np.ndarray:
    if argument.dtype.startswith("float"):
        return random.standard_normal(argument.shape).astype(argument.dtype)
    if argument.dtype == "uint16":
        return (random.standard_normal(argument.shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if argument.dtype == "bool":
        return random.random(argument.shape) < 0.5
    most = np.iinfo(argument.dtype)
    low, high = (most.min, most.max) if most.bits == 8 else (-100, 100)  # sums of larger ones would overflow
    return random.integers(low, high, argument.shape, argument.dtype, endpoint=True)


def difference(found: np.ndarray, wanted: np.ndarray) -> str:
    """How results differ that should be equal but for rounding, as a sentence; empty if they do not.

    Integers must be equal to the bit.
    """
    if wanted.dtype == np.uint16:
        found, wanted = (_widened(bits) for bits in (found, wanted))
        bound = 2e-2
    elif wanted.dtype.kind == "f":
        bound = 1e-3
    else:
        different = int(np.count_nonzero(found != wanted))
        return f"{different} of its {wanted.size} integers differ from those of the rule's kernel" if different else ""
    scale = float(np.abs(wanted).max(initial=0.0))
    apart = float(np.abs(found - wanted).max(initial=0.0))
    if np.isfinite(apart) and apart <= bound * scale:
        return ""
    return f"its results differ by {apart:.1e} from those of the rule's kernel, which are at most {scale:.1e}"


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)
