"""What the code in C around a model's kernels says of it, whatever they run on: tables of what it takes and gives, and
where the arguments of its kernels lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Program
from lvc.backends.tvm.runtime.library import TYPE_CODES

RUNTIME = Path(__file__).parent / "runtime"
INTERFACE, STATUS, VARIANTS = "include/lvc.h", "c/status.h", "c/variants.h"
"""What programs include, in a folder of its own, since others of its names would hide those of C; and what all devices
share."""

EXPORTED = "lvc_*"
"""What a shared library of a model shows of itself."""

_EMPTY = "{0, 0, 0, 0, 0}"


def texts(names: Iterable[str]) -> dict[str, str]:
    """Files of the runtime, by name."""
    return {Path(name).name: (RUNTIME / name).read_text() for name in names}


def macros(sizes: dict[str, int]) -> list[str]:
    """Sizes in bytes as macros."""
    return [f"#define LVC_{name}_BYTES UINT64_C({size})" for name, size in sizes.items()]


def constants(numbers: dict[str, int]) -> list[str]:
    return [f"enum {{ LVC_{name} = {value} }};" for name, value in numbers.items()]


def table(name: str, rows: Iterable[str], empty: str = _EMPTY) -> str:
    """A table, with a row that says nothing if there would be none."""
    lines = "".join(f"  {row},\n" for row in rows) or f"  {empty}\n"
    return f"static const {name}[] = {{\n{lines}}};"


class Bases:
    """Where arguments are counted from: every input and output, the weights, what setup prepares, the workspace."""

    def __init__(self, inputs: int, outputs: int, weight_bytes: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.weights = inputs + outputs
        self.prepared, self.workspace = self.weights + 1, self.weights + 2
        self._weight_bytes = weight_bytes

    @property
    def end(self) -> int:
        """How many there are."""
        return self.workspace + 1

    def numbers(self) -> dict[str, int]:
        places = {"WEIGHTS": self.weights, "PREPARED": self.prepared, "WORKSPACE": self.workspace}
        return {"INPUTS": self.inputs, "OUTPUTS": self.outputs, **places, "BASES": self.end}

    def place(self, argument: Argument) -> tuple[int, int]:
        """The number of the base of an argument, and how many bytes behind it that lies."""
        storage, offset = argument.place.storage, argument.place.offset
        if storage.kind is Kind.INPUT:
            return storage.position, offset
        if storage.kind is Kind.OUTPUT:
            return self.inputs + storage.position, offset
        offset += storage.position
        if storage.kind is Kind.WORKSPACE:
            return self.workspace, offset
        if storage.position >= self._weight_bytes:
            return self.prepared, offset - self._weight_bytes
        return self.weights, offset


def step_numbers(program: Program) -> dict[str, int]:
    """How many variants there are, steps of all of them, and steps of setup."""
    variants = program.variants
    steps = sum(len(one.steps) for one in variants)
    return {"VARIANTS": len(variants), "STEPS": steps, "SETUP_STEPS": len(program.setup)}


def signature(program: Program) -> list[str]:
    """The tables of what each variant of a model takes and gives, and of their shapes."""
    shapes, variants = _Shapes(), program.variants
    sides = {"input": [one.inputs for one in variants], "output": [one.outputs for one in variants]}
    tensors = [
        table(f"lvc_tensor lvc_{side}", [shapes.tensor(argument) for argument in chain.from_iterable(values)])
        for side, values in sides.items()
    ]
    described = table("lvc_info lvc_variant", map(_info, range(len(variants)), variants))
    return [table("int64_t lvc_shapes", map(str, shapes.sizes), "0"), *tensors, described]


def _info(place: int, variant: Program) -> str:
    ends = f"lvc_input + {place} * LVC_INPUTS, lvc_output + {place} * LVC_OUTPUTS"
    sizes = "LVC_WEIGHT_BYTES, LVC_PREPARED_BYTES + LVC_WORKSPACE_BYTES"
    return f"{{LVC_VERSION, LVC_INPUTS, LVC_OUTPUTS, {len(variant.steps)}, {ends}, {sizes}}}"


class _Shapes:
    """All shapes, one after the other, each kept once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._known: dict[Sequence[int], int] = {}

    def tensor(self, argument: Argument) -> str:
        shape = argument.shape
        if shape not in self._known:
            self._known[shape] = len(self.sizes)
            self.sizes.extend(shape)
        code, bits = TYPE_CODES[np.dtype(argument.dtype).kind], 8 * ITEM_BYTES[argument.dtype]
        return f"{{lvc_shapes + {self._known[shape]}, {len(shape)}, {code}, {bits}, {argument.bytes}}}"
