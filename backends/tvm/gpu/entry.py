"""The code of a model around its kernels, in C: tables that describe it, its launches and its device code, and the
runtime that calls the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lvc.backends.tvm.entry import (
    INTERFACE,
    STATUS,
    VARIANTS,
    Bases,
    constants,
    macros,
    signature,
    step_numbers,
    table,
    texts,
)
from lvc.backends.tvm.gpu.compiled import CompiledKernel
from lvc.backends.tvm.gpu.scratch import scratch_positions
from lvc.backends.tvm.program import Program
from lvc.compiler.measure.memory import Memory

HEADERS = (INTERFACE, "c/cuda.h", STATUS, VARIANTS, "c/gpu.h")
"""The runtime, in the order in which it is included; the tables stand behind the second."""

CODE = "code.bin"
_ALIGNMENT = 64


def embedded(name: str, file: str, more: str = "") -> str:
    """C that puts a file into a program under a name, which stands by itself so that it can be renamed; ``more`` are
    directives about it."""
    return f"""\
__asm__(".pushsection .rodata.{name},\\"a\\"\\n.balign {_ALIGNMENT}\\n.global {name}\\n{more}"
        ".type {name},%object\\n"
        "{name}:\\n.incbin \\"{file}\\"\\n.byte 0\\n.size {name},.-{name}\\n.popsection");"""


@dataclass
class Entry:
    """``program`` as C. ``kernels`` names the kernel of each step, those of setup first; ``capability`` is what their
    code is for, and ``compiler`` the version of CUDA that made it, such as ``13.0``."""

    program: Program
    kernels: Sequence[str]
    compiled: Mapping[str, CompiledKernel]
    memory: Memory
    scratch: Mapping[str, Sequence[int]]
    capability: int
    compiler: str
    code: bytearray = field(default_factory=bytearray)

    def sources(self) -> dict[str, str | bytes]:
        """The files that a library of the model is made of."""
        first, types, *others = (Path(name).name for name in HEADERS)
        tables, code = self._tables(), embedded("lvc_code", CODE, ".hidden lvc_code\\n")
        included = [f'#include "{name}"' for name in others]
        parts = [f'#include "{first}"', *self._sizes(), f'#include "{types}"', *tables, code, *included, ""]
        return {"model.c": "\n".join(parts), CODE: bytes(self.code), **texts(HEADERS)}

    def _sizes(self) -> list[str]:
        memory = self.memory
        sizes = {"WEIGHT": memory.weights, "WORKSPACE": memory.workspace, "PREPARED": memory.prepared}
        scratch = max((scratch_positions(found)[1] for found in self.scratch.values()), default=0)
        major, minor = map(int, self.compiler.split("."))
        return [
            *macros(sizes | {"SCRATCH": scratch}),
            f"#define LVC_CAPABILITY {self.capability}",
            f'#define LVC_CAPABILITY_TEXT "{self.capability // 10}.{self.capability % 10}"',
            f"#define LVC_COMPILER {1000 * major + 10 * minor}",
            f'#define LVC_COMPILER_TEXT "{self.compiler}"',
        ]

    def _tables(self) -> list[str]:
        program, bases = self.program, Bases(len(self.program.inputs), len(self.program.outputs), self.memory.weights)
        images = [self._image(kernel) for kernel in self.compiled.values()]
        functions = [
            (launch.name, number) for number, kernel in enumerate(self.compiled.values()) for launch in kernel.launches
        ]
        known = {name: number for number, (name, _) in enumerate(functions)}
        pointers: list[str] = []
        launches: list[str] = []
        firsts = [0]
        called = list(zip(self.kernels, program.called, strict=True))
        first = len(program.setup)
        most = 1
        for name, step in [*called[first:], *called[:first]]:
            places = [bases.place(argument) for argument in step.arguments]
            places += [(bases.end, position) for position in scratch_positions(self.scratch[name])[0]]
            for launch in self.compiled[name].launches:
                row = (known[launch.name], launch.blocks, launch.threads, len(pointers), len(launch.parameters))
                launches.append(_row(*row))
                pointers += [_row(*places[parameter.argument]) for parameter in launch.parameters]
                most = max(most, len(launch.parameters))
            firsts.append(len(launches))
        numbers = {
            **bases.numbers(),
            "SCRATCH": bases.end,
            "BASES": bases.end + 1,
            **step_numbers(program),
            "IMAGES": len(images),
            "FUNCTIONS": len(functions),
            "MOST_POINTERS": most,
        }
        return [
            *constants(numbers),
            *signature(program),
            table("lvc_image lvc_image_table", images, "{0, 0}"),
            table(
                "lvc_function lvc_functions", [_row(f"{number}", f'"{name}"') for name, number in functions], "{0, 0}"
            ),
            table("lvc_pointer lvc_pointers", pointers, "{0, 0}"),
            table("lvc_launch lvc_launches", launches),
            "/* the steps of a run of each variant, and behind them those of setup */",
            table("int32_t lvc_first_launch", map(str, firsts)),
        ]

    def _image(self, kernel: CompiledKernel) -> str:
        """Put the code of a kernel behind that of others."""
        return _row(self._put(kernel.code.cubin), self._put(kernel.code.ptx + b"\0"))

    def _put(self, content: bytes) -> int:
        self.code += bytes(-len(self.code) % _ALIGNMENT)
        place = len(self.code)
        self.code += content
        return place


def _row(*values: object) -> str:
    return f"{{{', '.join(map(str, values))}}}"
