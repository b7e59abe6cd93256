"""The code of a model around its kernels, in C: tables that describe it, the calls of its kernels, and the runtime.

It is no TIR, since TVM declares a called function anew at each call, which LLVM renames from the second one on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from lvc.backends.tvm.cpu.runtime.library import TYPE_CODES
from lvc.backends.tvm.memory import align
from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Program, Step
from lvc.compiler.measure.memory import Memory

RUNTIME = Path(__file__).parent / "runtime"
HEADERS = ("include/lvc.h", "c/threads.h", "c/model.h")
"""The runtime, in the order in which it is included; the tables stand behind the first. What programs include has a
folder of its own, since ``threads.h`` would hide that of C."""

EXPORTED = "lvc_*"
"""What a shared library of a model shows of itself."""

_EMPTY = "{0, 0, 0, 0, 0}"
_POINTER_BYTES = 8
_INSTANCE_BYTES, _WORKER_BYTES = 512, 128  # room for what is noted of an instance, pointers apart, and of a thread


def headers() -> dict[str, str]:
    """The files that the entry includes, by name."""
    return {Path(name).name: (RUNTIME / name).read_text() for name in HEADERS}


@dataclass(frozen=True)
class Entry:
    """``sizes`` are macros about memory, ``tables`` what a model takes and gives and the calls of its kernels."""

    sizes: str
    tables: str

    @classmethod
    def of(cls, program: Program, kernels: Sequence[str], memory: Memory) -> Entry:
        """Write that of a program; ``kernels`` names the kernel of each step, those of setup first."""
        return cls(_sizes(program, memory), _tables(program, kernels, memory))

    def source(self) -> str:
        """The code that stands beside `headers`."""
        first, *others = headers()
        parts = [f'#include "{first}"', self.sizes, self.tables, *(f'#include "{name}"' for name in others)]
        return "\n".join([*parts, ""])


def instance_bytes(program: Program, memory: Memory, threads: int = 1) -> int:
    """What ``LVC_MODEL_BYTES`` says."""
    parts = _parts(program, memory)
    return sum(parts.values()) + (threads - 1) * (parts["SCRATCH"] + parts["WORKER"])


def _sizes(program: Program, memory: Memory) -> str:
    sizes = {"WEIGHT": memory.weights} | _parts(program, memory)
    shared = " + ".join(f"LVC_{name}_BYTES" for name in ("WORKSPACE", "PREPARED", "STAGED", "INSTANCE"))
    lines = [f"#define LVC_{name}_BYTES UINT64_C({size})" for name, size in sizes.items()]
    each = "(uint64_t)(threads) * (LVC_SCRATCH_BYTES + LVC_WORKER_BYTES)"
    return "\n".join([*lines, f"#define LVC_MODEL_BYTES(threads) \\\n  ({shared} + \\\n   {each})"])


def _parts(program: Program, memory: Memory) -> dict[str, int]:
    """What the memory of an instance is made of; there is scratch for each thread, and what is noted of a worker."""
    tensors = [_most_bytes(values) for values in zip(*map(_tensors, program.variants), strict=True)]
    return {
        "WORKSPACE": align(memory.workspace),
        "PREPARED": align(memory.prepared),
        "SCRATCH": align(memory.scratch),
        "STAGED": sum(map(align, tensors)),
        "INSTANCE": align(_INSTANCE_BYTES + 2 * _POINTER_BYTES * len(tensors)),
        "WORKER": _WORKER_BYTES,
    }


def _tensors(program: Program) -> list[Argument]:
    return [*program.inputs, *program.outputs]


def _most_bytes(values: Iterable[Argument]) -> int:
    return max(value.bytes for value in values)


def _tables(program: Program, kernels: Sequence[str], memory: Memory) -> str:
    shapes, variants = _Shapes(), program.variants
    called = program.called
    arities = {name: len(step.arguments) for name, step in zip(kernels, called, strict=True)}
    first, bases = len(program.setup), _Bases(len(program.inputs), len(program.outputs), memory.weights)
    calls = [bases.call(name, step) for name, step in zip(kernels, called, strict=True)]
    sides = {"input": [one.inputs for one in variants], "output": [one.outputs for one in variants]}
    tensors = [
        _table(f"lvc_tensor lvc_{side}", map(shapes.tensor, chain.from_iterable(values)), _EMPTY)
        for side, values in sides.items()
    ]
    steps = sum(len(one.steps) for one in variants)
    numbers = bases.numbers() | {"VARIANTS": len(variants), "STEPS": steps, "SETUP_STEPS": first}
    return "\n".join(
        [
            *(f"extern int {name}({', '.join(['void *'] * arities[name])});" for name in sorted(arities)),
            *(f"enum {{ LVC_{name} = {value} }};" for name, value in numbers.items()),
            _table("int64_t lvc_shapes", map(str, shapes.sizes), "0"),
            *tensors,
            _table("lvc_info lvc_variant", map(_info, range(len(variants)), variants), ""),
            "/* the steps of a run of each variant, and behind them those of setup */",
            "static int lvc_call(int32_t step, char **b) {",
            "  switch (step) {",
            *(f"  case {place}: return {call};" for place, call in enumerate([*calls[first:], *calls[:first]])),
            "  default: return -1;",
            "  }",
            "}",
        ]
    )


def _info(place: int, variant: Program) -> str:
    ends = f"lvc_input + {place} * LVC_INPUTS, lvc_output + {place} * LVC_OUTPUTS"
    sizes = "LVC_WEIGHT_BYTES, LVC_PREPARED_BYTES + LVC_WORKSPACE_BYTES"
    return f"{{LVC_VERSION, LVC_INPUTS, LVC_OUTPUTS, {len(variant.steps)}, {ends}, {sizes}}}"


class _Bases:
    """Where arguments are counted from: every input and output, the weights, what setup prepares, the workspace."""

    def __init__(self, inputs: int, outputs: int, weight_bytes: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.weights = inputs + outputs
        self.prepared, self.workspace = self.weights + 1, self.weights + 2
        self._weight_bytes = weight_bytes

    def numbers(self) -> dict[str, int]:
        places = {"WEIGHTS": self.weights, "PREPARED": self.prepared, "WORKSPACE": self.workspace}
        return {"INPUTS": self.inputs, "OUTPUTS": self.outputs, **places, "BASES": self.workspace + 1}

    def call(self, kernel: str, step: Step) -> str:
        return f"{kernel}({', '.join(map(self._address, step.arguments))})"

    def _address(self, argument: Argument) -> str:
        storage, offset = argument.place.storage, argument.place.offset
        if storage.kind is Kind.INPUT:
            return f"b[{storage.position}] + {offset}"
        if storage.kind is Kind.OUTPUT:
            return f"b[{self.inputs + storage.position}] + {offset}"
        offset += storage.position
        if storage.kind is Kind.WORKSPACE:
            return f"b[{self.workspace}] + {offset}"
        is_prepared = storage.position >= self._weight_bytes
        base, offset = (self.prepared, offset - self._weight_bytes) if is_prepared else (self.weights, offset)
        return f"b[{base}] + {offset}"


class _Shapes:
    """All shapes, one after the other, each kept once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._known: dict[tuple[int, ...], int] = {}

    def tensor(self, argument: Argument) -> str:
        shape = argument.shape
        if shape not in self._known:
            self._known[shape] = len(self.sizes)
            self.sizes.extend(shape)
        code, bits = TYPE_CODES[np.dtype(argument.dtype).kind], 8 * ITEM_BYTES[argument.dtype]
        return f"{{lvc_shapes + {self._known[shape]}, {len(shape)}, {code}, {bits}, {argument.bytes}}}"


def _table(name: str, rows: Iterable[str], empty: str) -> str:
    lines = "".join(f"  {row},\n" for row in rows) or f"  {empty}\n"
    return f"static const {name}[] = {{\n{lines}}};"
