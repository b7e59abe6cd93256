"""What a model consists of as C that programs are built with: all names begin with its own, so that programs can hold
several."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lvc.backends.tvm.c_header import CHeader
from lvc.backends.tvm.cpu.entry import Entry, headers

_THREADS = "#define LVC_THREADS 1"
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
class CPackage(CHeader):
    """The texts of a model's C. ``mangled`` stands before names of C in assembly: nothing where object files are ELF,
    ``_`` where they are Mach-O."""

    entry: Entry
    mangled: str = ""

    def header(self) -> str:
        """What programs include."""
        return self.header_of(self.entry.sizes, has_heap=False)

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
        return super().renamed(_KERNEL_NAMES.sub(lambda found: found[1] + self.kernel(found[2]), text))
