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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lvc.backends.tvm.cpu.host import machine_architecture
from lvc.compiler.errors import CompileError
from lvc.compiler.files import Content

HOST_COMPILERS = ("cc", "gcc", "clang")
_ANDROID, _MACOS = "android", "macos"
_LACKING = {
    _ANDROID: (
        "the compiler of Android's NDK is not on the path",
        "put the NDK's toolchains/llvm/prebuilt/HOST/bin there, or take --emit c-package or source, which it compiles",
    ),
    _MACOS: ("this is no Mac, and the Python package ziglang is not installed", "pip install ziglang"),
}


@dataclass(frozen=True)
class Toolchain:
    """The command of a C compiler that links too, without what is to be done."""

    command: tuple[str, ...]

    def link(
        self,
        objects: Mapping[str, bytes],
        sources: Mapping[str, str | Content],
        exported: str,
        *,
        name: str = "model.so",
        flags: Sequence[str] = (),
    ) -> bytes:
        """Link object files and sources in C into a shared library; equal content gives equal bytes.

        Names that match ``exported`` can be found in it, all others are its own. Objects lie in the order of sizes:
        what is nearly equal comes together, where deflation finds it within its window of 32 kB.
        """
        with _folder(objects, sources) as folder:
            (folder / "exported").write_text(f"{{ global: {exported}; local: *; }};\n")
            compiled = self._compile(sources, ["-pthread", *flags], folder)
            shared = ["-shared", "-fPIC", "-s", "-pthread", "-Wl,--build-id=none", f"-Wl,-soname,{name}"]
            shared += ["-Wl,--gc-sections", "-Wl,--version-script=exported"]
            libraries = ["-Wl,--as-needed", "-lm", "-ldl"]  # powf and the like, in few models; dlopen where it is apart
            self._run([*shared, "-o", name, "@objects", *compiled, *libraries], folder)
            return (folder / name).read_bytes()

    def compile(self, sources: Mapping[str, str | Content], flags: Sequence[str] = ()) -> dict[str, bytes]:
        """Compile sources in C and assembly, with what they include, to object files by their stems."""
        with _folder({}, sources) as folder:
            compiled = self._compile(sources, flags, folder)
            return {Path(name).stem: (folder / name).read_bytes() for name in compiled}

    def archive(self, objects: Mapping[str, bytes]) -> bytes:
        """A static library of object files; equal content gives equal bytes."""
        with _folder(objects, {}) as folder:
            self._run(["rcsD", "made.a", *(f"{name}.o" for name in objects)], folder, self._archiver)
            return (folder / "made.a").read_bytes()

    def joined(self, objects: Mapping[str, bytes]) -> bytes:
        """One object file of several."""
        with _folder(objects, {}) as folder:
            self._run(["-r", "-nostdlib", "-o", "made", "@objects"], folder)
            return (folder / "made").read_bytes()

    @property
    def _archiver(self) -> tuple[str, ...]:
        """What makes libraries, which comes along with a compiler."""
        if "cc" in self.command[1:]:  # of ziglang
            return (*self.command[: self.command.index("cc", 1)], "ar")
        (compiler,) = self.command
        return (f"{compiler.removesuffix('gcc')}ar" if compiler.endswith("-gcc") else "ar",)

    def _compile(self, sources: Iterable[str], flags: Sequence[str], folder: Path) -> list[str]:
        """Compile those sources that are no headers; return the names of the object files."""
        compiled = [name for name in sources if name.endswith((".c", ".s", ".S"))]
        if compiled:
            self._run(["-O2", "-fPIC", "-std=gnu11", *flags, "-c", *compiled], folder)
        return [f"{Path(name).stem}.o" for name in compiled]

    def program(self, sources: Mapping[str, str], library: Path) -> Path:
        """Make a program of sources in C that uses a shared library, and finds it where both lie."""
        folder, made = library.parent, library.with_suffix("")
        for name, source in sources.items():
            (folder / name).write_text(source)
        compiled = [name for name in sources if name.endswith(".c")]
        self._run(["-O2", "-std=gnu11", "-o", made.name, *compiled, library.name, "-Wl,-rpath,$ORIGIN"], folder)
        return made

    def _run(self, arguments: list[str], folder: Path, program: tuple[str, ...] = ()) -> None:
        command = program or self.command
        try:
            done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise CompileError(
                f"there is no {command[0]}", help="it comes along with compilers (Debian: binutils)"
            ) from error
        if done.returncode:
            where = " ".join(command)
            raise CompileError(
                "linking the model failed",
                where=where,
                why=done.stderr.strip()[-2000:],
                help="beside the compiler it takes the headers and the C library of the target (Debian: libc6-dev, or "
                "libc6-dev-arm64-cross and libc6-dev-armhf-cross)",
            )


@contextmanager
def _folder(objects: Mapping[str, bytes], sources: Mapping[str, str | Content]) -> Iterator[Path]:
    """A folder with such files, and in ``objects`` the names of the object files in the order of their sizes."""
    with tempfile.TemporaryDirectory(prefix="lvc-") as text:
        folder = Path(text)
        for name, content in objects.items():
            (folder / f"{name}.o").write_bytes(content)
        for name, source in sources.items():
            (folder / name).write_bytes(source.encode() if isinstance(source, str) else source)
        by_size = sorted(objects, key=lambda name: (len(objects[name]), name))
        (folder / "objects").write_text("".join(f"{name}.o\n" for name in by_size))
        yield folder


def toolchain_of(triple: str) -> Toolchain:
    """The toolchain for an LLVM triple; `CompileError` that says what to install if there is none."""
    found = next(_toolchains(triple), None)
    if found:
        return found
    if system := next((system for system in _LACKING if system in triple), ""):
        why, help = _LACKING[system]
        raise CompileError(f"no C compiler found for {gnu_triple(triple)}", why=why, help=help)
    gnu = gnu_triple(triple)
    package = "gcc libc6-dev" if _is_own(triple) else f"gcc-{gnu.replace('_', '-')}"
    raise CompileError(
        f"no linker found for {gnu}",
        why=f"none of {', '.join(_compilers(triple))} is on the path, and the Python package ziglang is not installed",
        help=f"install a C compiler for it (Debian: apt-get install {package}), or pip install ziglang",
    )


def assembler_of(triple: str) -> Toolchain:
    """The toolchain for what includes nothing of a C library: assembly, and libraries of objects. Android has the
    objects of Linux."""
    return toolchain_of("aarch64-unknown-linux-gnu" if _ANDROID in triple else triple)


def _toolchains(triple: str) -> Iterator[Toolchain]:
    yield from (Toolchain((path,)) for name in _compilers(triple) if (path := shutil.which(name)))
    if importlib.util.find_spec("ziglang") and _ANDROID not in triple:  # it has no headers of Android's C library
        yield Toolchain((sys.executable, "-m", "ziglang", "cc", "-target", _zig_triple(triple)))


def _zig_triple(triple: str) -> str:
    return "aarch64-macos" if _MACOS in triple else gnu_triple(triple)


def _compilers(triple: str) -> tuple[str, ...]:
    if _ANDROID in triple:
        return (f"{gnu_triple(triple)}-clang",)
    if _MACOS in triple:
        return ("clang",) if sys.platform == "darwin" else ()
    return (*(HOST_COMPILERS if _is_own(triple) else ()), f"{gnu_triple(triple)}-gcc")


def _is_own(triple: str) -> bool:
    """Whether a triple is that of this machine."""
    known = machine_architecture()
    return known is not None and known.triple == triple


def gnu_triple(triple: str) -> str:
    """An LLVM triple as compilers are named: without the vendor, and without the version of 32-bit ARM."""
    parts = triple.replace("armv7a-", "arm-").split("-")
    return "-".join([parts[0], *parts[2:]] if len(parts) == 4 else parts)
