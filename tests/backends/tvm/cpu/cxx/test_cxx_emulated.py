"""The interface in C++ on other architectures, one of them of 32 bits, by emulation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cxx_program import built, made
from programs import run

from lvc.backends.tvm.cpu.emulation import Emulator
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.backends.tvm.cpu.toolchain import gnu_triple
from lvc.compiler.errors import CompileError

pytestmark = pytest.mark.targets


@pytest.mark.parametrize("cpu", ["aarch64", "armv7"])
def test_a_model_runs_on_another_architecture(cpu: str, tmp_path: Path) -> None:
    known = CPUS[cpu]
    compiler = shutil.which(f"{gnu_triple(known.architecture.triple)}-g++")
    try:
        emulator = Emulator.of(known.architecture, known.features)
    except CompileError as error:
        pytest.skip(error.what)
    if compiler is None:
        pytest.skip(f"there is no compiler for C++ for {cpu}")
    example = made(tmp_path, "O2", cpu)
    use = emulator.command(Path(built(tmp_path, "-O1", compiler=compiler)))
    run(*use, "run", example.file, example.input, str(tmp_path / "result"))
    assert (tmp_path / "result").read_bytes() == example.output.tobytes()
    run(*use, "share", example.file, example.input)
    run(*use, "misuse", example.file)
    assert "\tok\n" in run(*use, "mutate", example.file, example.input, "300")
    lines = run(*use, "explain", made(tmp_path, "O2").file)
    assert lines.rstrip().endswith(f"it is code for x86-64, and this is a program for {known.kind}")
