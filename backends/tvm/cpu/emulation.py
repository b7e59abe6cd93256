"""Code for processors that are not at hand, run by QEMU's emulation of them: right or wrong to the last bit, but in no
time that means anything.

A small program around the model's library, made by the toolchain of its architecture, serves calls over pipes.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lvc.backends.tvm.cpu.entry import headers
from lvc.backends.tvm.cpu.processor import Architecture
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.toolchain import gnu_triple, toolchain_of
from lvc.backends.tvm.entry import RUNTIME
from lvc.backends.tvm.plan import WEIGHTS
from lvc.backends.tvm.runtime.executable import LIBRARY, Code, Executable
from lvc.compiler.backend import Untimed, untimed_emulation
from lvc.compiler.errors import CompileError
from lvc.compiler.files import Content

SERVE = RUNTIME / "c" / "serve.c"
LIBRARIES = Path("/usr")
"""Where Debian puts the C libraries of other architectures, a folder each."""

_INSTALL = "apt-get install qemu-user-static gcc-{gnu}"
_SIGNALS = {-4: "it met an instruction that the emulated processor does not have", -11: "it read outside its memory"}


@dataclass(frozen=True)
class Emulator:
    """QEMU's program for an architecture, as a processor with at least these instruction sets."""

    path: str
    cpu: str
    libraries: Path

    @classmethod
    def of(cls, architecture: Architecture, features: frozenset[str]) -> Emulator:
        """The one that is installed; `CompileError` that says what to install."""
        gnu = gnu_triple(architecture.triple)
        help = f"Debian: {_INSTALL.format(gnu=gnu.replace('_', '-'))}"
        if not architecture.emulator:
            raise CompileError(f"code for {architecture.kind} cannot be emulated", help="run it on such a machine")
        names = (f"{architecture.emulator}-static", architecture.emulator)
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            raise CompileError(f"no emulator of {architecture.kind}", why=f"{names[0]} is not on the path", help=help)
        cpu = next((name for name, known in architecture.emulated.items() if features <= known), None)
        if cpu is None:
            most = frozenset[str]().union(*architecture.emulated.values())
            why = f"{architecture.emulator} has no {', '.join(sorted(features - most))}"
            raise CompileError("this code cannot be emulated", why=why, help="run it on such a machine")
        if not (LIBRARIES / gnu / "lib").is_dir():
            raise CompileError(f"no C library for {gnu}", why=f"there is no folder {LIBRARIES / gnu}/lib", help=help)
        return cls(path, cpu, LIBRARIES / gnu)

    def command(self, program: Path) -> list[str]:
        """What runs a program."""
        return [self.path, "-L", str(self.libraries), "-cpu", self.cpu, str(program)]


class Emulated(Executable, Untimed):
    """A model for another architecture that can be called, if slowly; it has no times to tell."""

    def _check_machine(self) -> None:
        """Any will do that has an emulator."""

    def _open(self, files: Mapping[str, Content]) -> Code:
        known = next(cpu.architecture for cpu in CPUS.values() if cpu.kind == self.plan.target.kind)
        return _Served(files, known, Emulator.of(known, self.plan.target.features))

    def time_steps(self, *arguments: Any, **options: Any) -> NoReturn:
        raise untimed_emulation()

    def peak_flops(self) -> NoReturn:
        raise untimed_emulation()


class _Served:
    """A model in a folder of its own, with a program around it; each instance is a process."""

    def __init__(self, files: Mapping[str, Content], architecture: Architecture, emulator: Emulator) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lvc-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        library = self.folder / LIBRARY
        library.write_bytes(files[LIBRARY])
        self._weights = library.with_name(WEIGHTS)
        self._weights.write_bytes(files[WEIGHTS])
        program = toolchain_of(architecture.triple).program(headers() | {SERVE.name: SERVE.read_text()}, library)
        self._command = [*emulator.command(program), str(self._weights)]

    def create(self, threads: int, shared: Any = None) -> _Instance:
        return _Instance([*self._command, str(threads)], self)


class _Instance:
    """An emulated process that serves one call at a time."""

    def __init__(self, command: Sequence[str], served: _Served) -> None:
        self._served = served  # its folder lives as long
        self._told = served.folder / f"told-{id(self)}"
        with self._told.open("wb") as told:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told)
        weakref.finalize(self, _end, self._process, os.getpid())

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], variant: int = 0) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("<i", variant))
            for array in inputs:
                self._process.stdin.write(array.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        (status,) = struct.unpack("<i", self._read(4))
        if status:
            raise CompileError("the model cannot be run", why=f"its runtime returned the status {status}")
        for array in outputs:
            array[...] = np.frombuffer(self._read(array.nbytes), array.dtype).reshape(array.shape)

    def run_step(self, step: int, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        raise untimed_emulation()

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(count)
        if len(found) != count:
            self._fail()
        return found

    def _fail(self) -> NoReturn:
        self._process.communicate()
        code, told = self._process.returncode, self._told.read_text(errors="replace")[-2000:].strip()
        why = _SIGNALS.get(code) or told or f"it ended with {code}"
        raise CompileError("the emulated model died", why=why)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner == os.getpid():
        process.kill()
        process.communicate()
