"""Toolchains: what compiles an entry in C and links it with kernels to a shared library for a triple.

Taken is the first that is there: this machine's own compiler for its own triple, a cross compiler named after the
triple, or the compiler of the Python package ziglang, which makes code for every triple.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lvc.backends.tvm.cpu.host import machine_architecture
from lvc.compiler.errors import CompileError

HOST_COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Toolchain:
    """The command of a C compiler that links too, without what is to be done."""

    command: tuple[str, ...]

    def link(self, objects: Mapping[str, bytes], sources: Mapping[str, str], exported: str) -> bytes:
        """Link object files and sources in C into a shared library; equal content gives equal bytes.

        Names that match ``exported`` can be found in it, all others are its own. Objects lie in the order of sizes:
        what is nearly equal comes together, where deflation finds it within its window of 32 kB.
        """
        with tempfile.TemporaryDirectory(prefix="lvc-") as text:
            folder = Path(text)
            for name, content in objects.items():
                (folder / f"{name}.o").write_bytes(content)
            for name, source in sources.items():
                (folder / name).write_text(source)
            by_size = sorted(objects, key=lambda name: (len(objects[name]), name))
            (folder / "objects").write_text("".join(f"{name}.o\n" for name in by_size))
            (folder / "exported").write_text(f"{{ global: {exported}; local: *; }};\n")
            compiled = [name for name in sources if name.endswith(".c")]
            self._run(["-O2", "-fPIC", "-std=gnu11", "-pthread", "-c", *compiled], folder)
            flags = ["-shared", "-fPIC", "-s", "-pthread", "-Wl,--build-id=none", "-Wl,-soname,model.so", "-Wl,--gc-sections"]
            parts = ["@objects", *(f"{Path(name).stem}.o" for name in compiled)]
            libraries = ["-Wl,--as-needed", "-lm"]  # powf and the like, in few models
            self._run([*flags, "-Wl,--version-script=exported", "-o", "model.so", *parts, *libraries], folder)
            return (folder / "model.so").read_bytes()

    def program(self, sources: Mapping[str, str], library: Path) -> Path:
        """Make a program of sources in C that uses a shared library, and finds it where both lie."""
        folder, made = library.parent, library.with_suffix("")
        for name, source in sources.items():
            (folder / name).write_text(source)
        compiled = [name for name in sources if name.endswith(".c")]
        self._run(["-O2", "-std=gnu11", "-o", made.name, *compiled, library.name, "-Wl,-rpath,$ORIGIN"], folder)
        return made

    def _run(self, arguments: list[str], folder: Path) -> None:
        command = [*self.command, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            where = " ".join(self.command)
            raise CompileError(
                "linking the model failed",
                where=where,
                why=done.stderr.strip()[-2000:],
                help="beside the compiler it takes the headers and the C library of the target (Debian: libc6-dev, or "
                "libc6-dev-arm64-cross and libc6-dev-armhf-cross)",
            )


def toolchain_of(triple: str) -> Toolchain:
    """The toolchain for an LLVM triple; `CompileError` that says what to install if there is none."""
    found = next(_toolchains(triple), None)
    if found:
        return found
    gnu = gnu_triple(triple)
    package = "gcc libc6-dev" if _is_own(triple) else f"gcc-{gnu.replace('_', '-')}"
    raise CompileError(
        f"no linker found for {gnu}",
        why=f"none of {', '.join(_compilers(triple))} is on the path, and the Python package ziglang is not installed",
        help=f"install a C compiler for it (Debian: apt-get install {package}), or pip install ziglang",
    )


def _toolchains(triple: str) -> Iterator[Toolchain]:
    yield from (Toolchain((path,)) for name in _compilers(triple) if (path := shutil.which(name)))
    if importlib.util.find_spec("ziglang"):
        yield Toolchain((sys.executable, "-m", "ziglang", "cc", "-target", gnu_triple(triple)))


def _compilers(triple: str) -> tuple[str, ...]:
    return (*(HOST_COMPILERS if _is_own(triple) else ()), f"{gnu_triple(triple)}-gcc")


def _is_own(triple: str) -> bool:
    """Whether a triple is that of this machine."""
    known = machine_architecture()
    return known is not None and known.triple == triple


def gnu_triple(triple: str) -> str:
    """An LLVM triple as compilers are named: without the vendor, and without the version of 32-bit ARM."""
    parts = triple.replace("armv7a-", "arm-").split("-")
    return "-".join([parts[0], *parts[2:]] if len(parts) == 4 else parts)
