"""What a model consists of as C that programs are built with: all names begin with its own, so that programs can hold
several."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lvc.backends.tvm.cpu.entry import Entry, headers
from lvc.compiler.artefact import Artefact
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.emission import Emission

_HEAP, _THREADS = "#define LVC_HEAP 1", "#define LVC_THREADS 1"
_KERNEL_NAMES = re.compile(r"(?<![A-Za-z0-9])(_?)(k_[0-9a-f]+|__TVMBackend\w+)\b")

_CMAKE = """\
# add_subdirectory of this folder, then: target_link_libraries(program PRIVATE {name})
cmake_minimum_required(VERSION 3.13)
project({name} LANGUAGES {languages})
option({macros}_THREADS "run on POSIX threads" {default})

add_library({name} STATIC {sources})
target_include_directories({name} PUBLIC "${{CMAKE_CURRENT_SOURCE_DIR}}")
set_target_properties({name} PROPERTIES C_STANDARD 11)
target_compile_options({name} PRIVATE -O2 -ffunction-sections -fno-asynchronous-unwind-tables)
target_link_options({name} INTERFACE {unused})
target_compile_definitions({name} PRIVATE {macros}_THREADS=$<BOOL:${{{macros}_THREADS}}>)
{libraries}if({macros}_THREADS)
  find_package(Threads REQUIRED)
  target_link_libraries({name} PUBLIC Threads::Threads)
endif()
"""

_WEIGHTS = """\
    .section .rodata.{name}_weights,"a",%progbits
    .balign 64
    .global {name}_weights
    .type {name}_weights,%object
{name}_weights:
    .incbin "{file}"
    .byte 0
    .size {name}_weights,.-{name}_weights
    .section .note.GNU-stack,"",%progbits
"""

_MACH_WEIGHTS = """\
    .section __TEXT,__const
    .p2align 6
    .globl _{name}_weights
_{name}_weights:
    .incbin "{file}"
    .byte 0
"""


@dataclass(frozen=True)
class CPackage:
    """The texts of a model's C, under the name of an emission. ``mangled`` stands before names of C in assembly:
    nothing where object files are ELF, ``_`` where they are Mach-O."""

    artefact: Artefact
    entry: Entry
    emission: Emission
    mangled: str = ""

    @property
    def name(self) -> str:
        return self.emission.prefix

    @property
    def weights_file(self) -> str:
        return f"{self.name}_weights.bin"

    def header(self) -> str:
        """What programs include: the interface in ``lvc.h`` under the name of the model, and its sizes."""
        text = headers()["lvc.h"]
        assert _HEAP in text
        body = text.replace(_HEAP, _HEAP[:-1] + "0").rstrip().removesuffix("#endif").rstrip()
        described = "\n".join(f"   {line}".rstrip() for line in self._described()).strip()
        numbers = [*self._numbers(), self.entry.sizes, *self._pixels(), *self._weights()]
        return self.renamed("\n".join([f"/* {described} */", body, "", *numbers, "#endif", ""]))

    def labels(self) -> str:
        """The names of classes, for programs that print them."""
        rows = "".join(f"  {_literal(label)},\n" for label in self.artefact.metadata.get("labels") or ())
        return rows and self.renamed(f"static const char *const lvc_labels[] = {{\n{rows}}};\n")

    def source(self) -> str:
        """What is compiled once: tables, calls of kernels, threads, instances."""
        _, *others = headers().values()
        assert _THREADS in others[0]
        others[0] = others[0].replace(_THREADS, _THREADS[:-1] + "0")
        return self.renamed("\n".join([f'#include "{self.name}.h"\n', self.entry.tables, *others]))

    def weights(self) -> str:
        """Assembly that puts the file of weights into a program."""
        return (_MACH_WEIGHTS if self.mangled else _WEIGHTS).format(name=self.name, file=self.weights_file)

    def cmake(self, sources: list[str], libraries: list[str]) -> str:
        """How CMake builds it, of its sources and libraries in the same folder."""
        linked = [name if "." not in name else f'"${{CMAKE_CURRENT_SOURCE_DIR}}/{name}"' for name in libraries]
        text = _CMAKE.format(
            name=self.name,
            macros=self.name.upper(),
            languages="C ASM" if any(not source.endswith(".c") for source in sources) else "C",
            default="ON" if self.emission.threads != "none" else "OFF",
            sources=" ".join(sources),
            unused="-Wl,-dead_strip" if self.mangled else "-Wl,--gc-sections",
            libraries=f"target_link_libraries({self.name} PUBLIC {' '.join(linked)})\n" if linked else "",
        )
        return text

    def kernel(self, name: str) -> str:
        """A name that a kernel's object defines, under the name of the model."""
        return f"{self.name}_{name.lstrip('_')}"

    def renamed(self, text: str) -> str:
        """C or assembly under the name of the model."""
        text = _KERNEL_NAMES.sub(lambda found: found[1] + self.kernel(found[2]), text)
        text = re.sub(r"\bLVC_(?=\w)", f"{self.name.upper()}_", text)
        return re.sub(r"\blvc_(?=\w)", f"{self.name}_", text)

    def _described(self) -> list[str]:
        """What the model takes and gives; names come from its author, and end no comment."""
        lines = [f"{_quoted(self.artefact.name)} for {self.artefact.target}, made by lvc", ""]
        for kind, values in (("input", self.artefact.inputs), ("output", self.artefact.outputs)):
            lines += [f"{kind} {place}: {_quoted(v.name)} {v.spec}" for place, v in enumerate(values)]
        for number, one in enumerate(self.artefact.variants, 1):
            specs = (", ".join(str(value.spec) for value in values) for values in (one.inputs, one.outputs))
            lines.append(f"variant {number}: {' to '.join(specs)}")
        if how := self.artefact.metadata.get("preprocessing"):
            lines.append(f"preprocessing: {_quoted(str(how))}")
        return lines

    def _numbers(self) -> list[str]:
        ends = [("INPUT", self.artefact.inputs), ("OUTPUT", self.artefact.outputs)]
        for number, one in enumerate(self.artefact.variants, 1):
            ends += [(f"VARIANT_{number}_INPUT", one.inputs), (f"VARIANT_{number}_OUTPUT", one.outputs)]
        return [
            f"#define LVC_{kind}_{place}_{what} {number}"
            for kind, values in ends
            for place, value in enumerate(values)
            for what, number in (("BYTES", value.spec.bytes), ("SHAPE", _listed(map(str, value.spec.shape))))
        ]

    def _pixels(self) -> list[str]:
        """How a byte of a picture becomes a number; its size is for the program to see to."""
        if not (text := self.artefact.metadata.get("preprocessing")):
            return []
        how = Preprocess.parse(str(text))
        channels = {"rgb": "012", "bgr": "210", "gray": "0"}[how.layout]
        divisor, shift = {"1": (255.0, 0.0), "255": (1.0, 0.0), "symmetric": (127.5, 1.0)}[how.range]
        each = {"MEAN": how.mean or (0.0,), "STD": how.std or (1.0,)}
        numbers = {name: (values * how.channels)[: how.channels] for name, values in each.items()}
        return [
            "/* a byte of a picture becomes (byte / PIXEL_DIVISOR - PIXEL_SHIFT - MEAN) / STD, the latter two of the",
            "   channels in the order in which CHANNELS names those of the picture */",
            f"#define LVC_CHANNELS {_listed(channels)}",
            f"#define LVC_PIXEL_DIVISOR {_float(divisor)}",
            f"#define LVC_PIXEL_SHIFT {_float(shift)}",
            *(f"#define LVC_{name} {_listed(map(_float, values))}" for name, values in numbers.items()),
        ]

    def _weights(self) -> list[str]:
        if self.emission.weights != "linked":
            return [f"/* the weights are the bytes of {self.weights_file} */"]
        return ["extern const unsigned char lvc_weights[]; /* LVC_WEIGHT_BYTES of them */"]


def _listed(values: Iterable[str]) -> str:
    return f"{{{', '.join(values)}}}"


def _float(value: float) -> str:
    """The nearest number of 32 bits, as C reads it back."""
    return f"{float(np.float32(value))!r}f"


def _literal(text: str) -> str:
    """A text in C, byte by byte where it is more than letters, digits and spaces."""
    plain = (
        chr(byte) if byte < 0x80 and (chr(byte).isalnum() or byte == 0x20) else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'


def _quoted(text: str) -> str:
    """A text within a comment, which it does not end."""
    return json.dumps(text).replace("*/", "* /").replace("/*", "/ *")
