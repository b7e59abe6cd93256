"""The shared library: kernels and entry function, linked by the system's C compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lvc.compiler.errors import CompileError

LINKERS = ("cc", "gcc", "clang")


def link(objects: Mapping[str, bytes], entry: str) -> bytes:
    """Link object files and an entry function in C into a shared library; equal content gives equal bytes."""
    linker = find_linker()
    with tempfile.TemporaryDirectory(prefix="lvc-") as text:
        folder = Path(text)
        for name, content in objects.items():
            (folder / f"{name}.o").write_bytes(content)
        (folder / "entry.c").write_text(entry)
        (folder / "objects").write_text("".join(f"{name}.o\n" for name in sorted(objects)))
        _run([linker, "-O2", "-fPIC", "-std=c11", "-c", "entry.c", "-o", "entry.o"], folder)
        flags = ["-shared", "-fPIC", "-s", "-Wl,--build-id=none", "-Wl,-soname,model.so"]
        _run([linker, *flags, "-o", "model.so", "@objects", "entry.o"], folder)
        return (folder / "model.so").read_bytes()


def find_linker() -> str:
    """The path of a C compiler; `CompileError` if there is none."""
    for name in LINKERS:
        if path := shutil.which(name):
            return path
    raise CompileError(
        "no linker found",
        why="none of " + ", ".join(LINKERS) + " is on the path",
        help="install a C compiler (Debian: apt-get install gcc libc6-dev)",
    )


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError("linking the model failed", where=command[0], why=done.stderr.strip()[-2000:])
