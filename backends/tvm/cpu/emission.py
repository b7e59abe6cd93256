"""A built model in other forms than its artefact, made of the same parts: kernels, entry and weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lvc.backends.tvm.cpu.c_package import CPackage
from lvc.backends.tvm.cpu.elf import ObjectFile
from lvc.backends.tvm.cpu.entry import Entry
from lvc.backends.tvm.cpu.mach_object import MachObject
from lvc.backends.tvm.cpu.processor import Architecture
from lvc.backends.tvm.cpu.toolchain import Toolchain, assembler_of, toolchain_of
from lvc.backends.tvm.plan import WEIGHTS
from lvc.compiler.artefact import Artefact
from lvc.compiler.emission import MANIFEST, Emission, described
from lvc.compiler.files import Content
from lvc.compiler.measure.memory import memory_of

_OF_C = {"memcpy", "memmove", "memset", "bzero"}
_DEBUG = re.compile(r'\t\.section\t("?\.debug|__DWARF)')


@dataclass(frozen=True)
class Parts:
    """What a library is linked of: the code around kernels and their object files, for an architecture.

    ``instance_bytes`` are those of an instance on one thread, ``assembly`` makes the kernels' assembly.
    """

    architecture: Architecture
    entry: Entry
    objects: Mapping[str, bytes]
    instance_bytes: int
    assembly: Callable[[], Mapping[str, str]]


def emitted(artefact: Artefact, emission: Emission) -> dict[str, Content]:
    """The files of an emission of an artefact that has its parts."""
    assert isinstance(artefact.parts, Parts)
    return _Emitter(artefact, emission, artefact.parts).files()


@dataclass(frozen=True)
class _Emitter:
    artefact: Artefact
    emission: Emission
    parts: Parts

    def files(self) -> dict[str, Content]:
        make: dict[str, Callable[[], Mapping[str, Content]]] = {
            "c-package": self._package,
            "source": self._sources,
            "static": self._static,
            "shared": self._shared,
            "object": self._object,
        }
        files: dict[str, Content] = {self._header: self.text.header().encode(), **make[self.emission.form]()}
        if labels := self.text.labels():
            files[f"{self.text.name}_labels.h"] = labels.encode()
        if not self._is_linked:
            files[self.text.weights_file] = self.weights
        return files | {MANIFEST: described(self.artefact, self.emission, files, self._sizes())}

    @cached_property
    def text(self) -> CPackage:
        return CPackage(self.artefact, self.emission, self.parts.entry, self.parts.architecture.mangled)

    @property
    def weights(self) -> Content:
        return self.artefact.files[WEIGHTS]

    @cached_property
    def toolchain(self) -> Toolchain:
        return toolchain_of(self.triple)

    @cached_property
    def assembler(self) -> Toolchain:
        return assembler_of(self.triple)

    @property
    def triple(self) -> str:
        return self.parts.architecture.triple

    @cached_property
    def kernels(self) -> dict[str, ObjectFile] | dict[str, MachObject]:
        """Kernels under the name of the model."""
        if self.parts.architecture.mangled:
            made = self.assembler.compile({f"{name}.s": text for name, text in self._assembly().items()})
            return {name: MachObject.read(content) for name, content in made.items()}
        read = {name: ObjectFile.read(content) for name, content in self.parts.objects.items()}
        return {self.text.kernel(name): file.renamed(self.text.kernel) for name, file in read.items()}

    def _assembly(self) -> dict[str, str]:
        """The assembly of kernels under the name of the model."""
        made, text = self.parts.assembly(), self.text
        return {text.kernel(name): text.renamed(_without_debug(source)) for name, source in made.items()}

    @property
    def _is_linked(self) -> bool:
        return self.emission.weights == "linked"

    @property
    def _header(self) -> str:
        return f"{self.text.name}.h"

    @property
    def _source(self) -> str:
        return f"{self.text.name}.c"

    @property
    def _libraries(self) -> list[str]:
        """Libraries that kernels call, beside what any C library has at hand."""
        wanted = frozenset[str]().union(*(file.wanted for file in self.kernels.values()))
        return ["m"] if wanted - _OF_C else []

    def _package(self) -> dict[str, Content]:
        library = f"lib{self.text.name}_kernels.a"
        return {
            self._source: self.text.source().encode(),
            library: self.assembler.archive(self._codes() | self._weights_object()),
            "CMakeLists.txt": self.text.cmake([self._source], [library, *self._libraries]).encode(),
        }

    def _sources(self) -> dict[str, Content]:
        files: dict[str, Content] = {self._source: self.text.source().encode()}
        files |= {f"kernels/{name}.s": text.encode() for name, text in self._assembly().items()}
        if self._is_linked:
            files |= {f"{self.text.name}_weights.S": self.text.weights().encode(), self.text.weights_file: self.weights}
        sources = [name for name in files if not name.endswith(".bin")]
        return files | {"CMakeLists.txt": self.text.cmake(sources, self._libraries).encode()}

    def _static(self) -> dict[str, Content]:
        return {f"lib{self.text.name}.a": self.toolchain.archive(self._all_codes())}

    def _object(self) -> dict[str, Content]:
        return {f"{self.text.name}.o": self.toolchain.joined(self._all_codes())}

    def _shared(self) -> dict[str, Content]:
        name, text = f"lib{self.text.name}.so", self.text
        sources = {self._source: text.source(), self._header: text.header()}
        objects = self._codes() | self._weights_object()
        return {name: self.toolchain.link(objects, sources, text.exported, name=name, flags=self._flags())}

    def _codes(self) -> dict[str, bytes]:
        return {name: file.written() for name, file in self.kernels.items()}

    def _all_codes(self) -> dict[str, bytes]:
        sources = {self._source: self.text.source(), self._header: self.text.header()}
        flags = ["-ffunction-sections", "-fno-asynchronous-unwind-tables", "-ftls-model=initial-exec", *self._flags()]
        return self.toolchain.compile(sources, flags) | self._codes() | self._weights_object()

    def _flags(self) -> list[str]:
        return [f"-D{self.text.name.upper()}_THREADS={int(self.emission.threads != 'none')}"]

    def _weights_object(self) -> dict[str, bytes]:
        if not self._is_linked:
            return {}
        name = f"{self.text.name}_weights"
        return self.assembler.compile({f"{name}.S": self.text.weights(), self.text.weights_file: self.weights})

    def _sizes(self) -> dict[str, object]:
        memory = memory_of(self.artefact)
        assert memory is not None
        bytes_ = {
            "kernels": sum(file.code_bytes for file in self.kernels.values()),
            "kernels_constants": sum(file.constant_bytes for file in self.kernels.values()),
            "weights": memory.weights,
            "workspace": memory.workspace,
            "prepared": memory.prepared,
            "scratch_per_thread": memory.scratch,
            "instance": self.parts.instance_bytes,
        }
        return {"triple": self.triple, "bytes": bytes_, "libraries": ["c", *self._libraries]}


def _without_debug(assembly: str) -> str:
    """Assembly without what debuggers read, which LLVM writes behind the code."""
    kept, is_debug = [], False
    for line in assembly.splitlines(keepends=True):
        if line.startswith("\t.section\t") or line == "\t.text\n":
            is_debug = bool(_DEBUG.match(line))
        if not is_debug and not line.startswith(("\t.loc\t", "\t.file\t", "\t.cfi_")):
            kept.append(line)
    return "".join(kept)
