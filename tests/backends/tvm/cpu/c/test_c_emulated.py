"""A built model as C for other architectures, one of them of 32 bits, by emulation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from c_program import Example, built, made, outcome

from lvc.backends.tvm.cpu.emulation import Emulator
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.toolchain import gnu_triple
from lvc.compiler.errors import CompileError

THREADS = ("-DNET_THREADS=1", "-DTHREADS=2", "-pthread")
OTHERS = [
    ("aarch64", "O2"),
    ("cortex-a76", "int8-fast"),
    pytest.param("cortex-a53", "int8-fast", marks=pytest.mark.targets),
    pytest.param("armv7", "O2", marks=pytest.mark.targets),
    pytest.param("armv7", "int8-fast", marks=pytest.mark.targets),
]


@pytest.mark.parametrize(("cpu", "pipeline"), OTHERS)
def test_a_package_gives_the_bits_of_the_artefact(cpu: str, pipeline: str, tmp_path: Path) -> None:
    known = CPUS[cpu]
    gnu = gnu_triple(known.architecture.triple)
    try:
        emulator = Emulator.of(known.architecture, known.features)
    except CompileError as error:
        pytest.skip(error.what)
    commands = {"gcc": (f"{gnu}-gcc",), "zig": ("zig", "cc", "-target", gnu)}
    there = {name: list(command) for name, command in commands.items() if shutil.which(command[0])}
    if not there:
        pytest.skip(f"there is no compiler for {gnu}")
    example = made(tmp_path, pipeline, cpu)
    for name, command in there.items():
        for flags in ((), THREADS):
            check(tmp_path, command, example, "c-package", emulator, *flags)
        check(tmp_path, command, example, "source", emulator)
        if name == "gcc":
            check(tmp_path, command, example, "static", emulator)
            check(tmp_path, command, example, "shared", emulator)


def check(folder: Path, command: list[str], example: Example, form: str, emulator: Emulator, *flags: str) -> None:
    """That a program of a form writes the artefact's output."""
    emitted = example.emitted(form)
    files = [file for file in emitted.rglob("*") if file.suffix in (".c", ".a", ".so", ".s", ".S")]
    in_order = sorted(files, key=lambda file: (file.parent != emitted, file.suffix == ".a", file.name))
    built(folder, command, in_order, f"-Wl,-rpath,{emitted}", *flags)
    assert outcome(folder, emulator.command(folder / "use"), example) == example.output.tobytes()
