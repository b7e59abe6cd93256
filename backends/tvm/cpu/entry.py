"""The code of a model around its kernels, in C: tables that describe it, the calls of its kernels, and the runtime.

It is no TIR, since TVM declares a called function anew at each call, which LLVM renames from the second one on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvc.backends.tvm.entry import INTERFACE, STATUS, VARIANTS, Bases, constants, macros, signature, step_numbers, texts
from lvc.backends.tvm.memory import align
from lvc.backends.tvm.program import Argument, Program, Step
from lvc.compiler.measure.memory import Memory

HEADERS = (INTERFACE, "c/threads.h", STATUS, VARIANTS, "c/model.h")
"""The runtime, in the order in which it is included; the tables stand behind the first."""

_POINTER_BYTES = 8
_INSTANCE_BYTES, _WORKER_BYTES = 512, 128  # room for what is noted of an instance, pointers apart, and of a thread


def headers() -> dict[str, str]:
    """The files that the entry includes, by name."""
    return texts(HEADERS)


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
        first, *others = (Path(name).name for name in HEADERS)
        parts = [f'#include "{first}"', self.sizes, self.tables, *(f'#include "{name}"' for name in others)]
        return "\n".join([*parts, ""])


def instance_bytes(program: Program, memory: Memory, threads: int = 1) -> int:
    """What ``LVC_MODEL_BYTES`` says."""
    parts = _parts(program, memory)
    return sum(parts.values()) + (threads - 1) * (parts["SCRATCH"] + parts["WORKER"])


def _sizes(program: Program, memory: Memory) -> str:
    sizes = {"WEIGHT": memory.weights} | _parts(program, memory)
    shared = " + ".join(f"LVC_{name}_BYTES" for name in ("WORKSPACE", "PREPARED", "STAGED", "INSTANCE"))
    each = "(uint64_t)(threads) * (LVC_SCRATCH_BYTES + LVC_WORKER_BYTES)"
    return "\n".join([*macros(sizes), f"#define LVC_MODEL_BYTES(threads) \\\n  ({shared} + \\\n   {each})"])


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
    called = program.called
    arities = {name: len(step.arguments) for name, step in zip(kernels, called, strict=True)}
    first, bases = len(program.setup), Bases(len(program.inputs), len(program.outputs), memory.weights)
    calls = [_call(bases, name, step) for name, step in zip(kernels, called, strict=True)]
    numbers = bases.numbers() | step_numbers(program)
    return "\n".join(
        [
            *(f"extern int {name}({', '.join(['void *'] * arities[name])});" for name in sorted(arities)),
            *constants(numbers),
            *signature(program),
            "/* the steps of a run of each variant, and behind them those of setup */",
            "static int lvc_call(int32_t step, char **b) {",
            "  switch (step) {",
            *(f"  case {place}: return {call};" for place, call in enumerate([*calls[first:], *calls[:first]])),
            "  default: return -1;",
            "  }",
            "}",
        ]
    )


def _call(bases: Bases, kernel: str, step: Step) -> str:
    places = map(bases.place, step.arguments)
    return f"{kernel}({', '.join(f'b[{base}] + {offset}' for base, offset in places)})"
