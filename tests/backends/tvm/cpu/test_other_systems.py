"""Code for macOS and Android, which is emitted here and linked there: the formats of its files, by reading them."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sketch import Sketch

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.architectures import aarch64_systems
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.elf import ObjectFile
from lvc.backends.tvm.cpu.mach_object import ARM64, MAGIC, MachObject
from lvc.backends.tvm.cpu.toolchain import Toolchain, assembler_of, toolchain_of
from lvc.backends.tvm.lower import lower
from lvc.compiler.backend import Place, Target
from lvc.compiler.driver import compile
from lvc.compiler.emission import Emission, check_emission, emit
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.model import Model

MACOS, ANDROID = "apple-m1-macos", "cortex-a76-android"
PROGRAM = """
#include "net.h"
static _Alignas(64) char memory[NET_MODEL_BYTES(1)];
int main(void) {
  net_model *made;
  return net_model_place(memory, sizeof memory, net_weights, 1, 0, &made);
}
"""


def model() -> Model:
    sketch = Sketch()
    weight = sketch.stored(torch.ones(8, 6))
    return sketch.model(sketch.call(aten.linear.default, sketch.input(2, 6), weight))


def emitted(target: str, form: str, folder: Path) -> Path:
    """A small model in a form; skips where something is missing that makes it."""
    if missing := BACKEND.missing(Target.parse(target)):
        pytest.skip(missing.what)
    emit(compile(model(), "", target, verify=False), folder / form, Emission(form, "net"))
    return folder / form


@pytest.mark.parametrize("target", [MACOS, ANDROID])
def test_it_is_linked_elsewhere(target: str) -> None:
    known = Target.parse(target)
    assert BACKEND.place(known) is Place.ELSEWHERE
    assert "emits objects" in BACKEND.targets()[target]
    for form in ("artefact", "shared"):
        with pytest.raises(UsageError, match=f"cannot be emitted as '{form}'") as caught:
            check_emission(Emission(form, "net"), known)
        assert "linked there" in caught.value.why
        assert "c-package, source, static, object" in caught.value.help
    for form in ("c-package", "source", "static", "object"):
        check_emission(Emission(form, "net"), known)


def test_kernels_for_macos_are_mach_objects() -> None:
    generator = CpuCodeGenerator.of(Target.parse(MACOS))
    (step,) = lower(model(), generator).steps
    made = MachObject.read(generator.compile(step, "k_12ab").code)
    assert struct.unpack_from("<2I", made.content) == (MAGIC, ARM64)
    assert "k_12ab" in made.defined
    assert made.wanted <= {"__TVMBackendParallelLaunch", "memset", "memcpy", "bzero"}
    assert made.code_bytes > 100


def test_a_static_library_for_macos_defines_what_the_header_says(tmp_path: Path) -> None:
    folder = emitted(MACOS, "object", tmp_path)
    made = MachObject.read((folder / "net.o").read_bytes())
    assert {"net_model_place", "net_run", "net_weights"} <= made.defined
    assert made.wanted <= {"memcpy", "memset", "bzero", "memmove", "_tlv_bootstrap"}


def test_a_program_for_macos_is_linked_of_the_package(tmp_path: Path) -> None:
    folder = emitted(MACOS, "c-package", tmp_path)
    text = (folder / "CMakeLists.txt").read_text()
    assert "-dead_strip" in text
    assert "gc-sections" not in text
    (folder / "main.c").write_text(PROGRAM)
    command = [*toolchain_of(aarch64_systems.MACOS.triple).command, "-std=gnu11"]
    command += ["-DNET_THREADS=1", "main.c", "net.c", "libnet_kernels.a", "-o", "main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert struct.unpack_from("<2I", (folder / "main").read_bytes()) == (MAGIC, ARM64)


def test_sources_for_macos_are_in_its_syntax(tmp_path: Path) -> None:
    folder = emitted(MACOS, "source", tmp_path)
    weights, (kernel,) = (folder / "net_weights.S").read_text(), (folder / "kernels").iterdir()
    assert ".globl _net_weights" in weights
    text = kernel.read_text()
    assert f".globl\t_{kernel.stem}" in text
    for word in ("progbits", ".note.GNU-stack", ".type", "__DWARF", ".cfi"):
        assert word not in weights + text


def test_a_package_for_android_has_objects_of_linux(tmp_path: Path) -> None:
    folder = emitted(ANDROID, "c-package", tmp_path)
    archive = (folder / "libnet_kernels.a").read_bytes()
    generator = CpuCodeGenerator.of(Target.parse(ANDROID))
    (step,) = lower(model(), generator).steps
    assert "k_1" in {symbol.name for symbol in ObjectFile.read(generator.compile(step, "k_1").code).symbols}
    assert archive.count(b"\x7fELF") == 2  # of a kernel and of the weights


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")
    for system, help in ((aarch64_systems.MACOS, "pip install ziglang"), (aarch64_systems.ANDROID, "NDK's toolchains")):
        with pytest.raises(CompileError, match="no C compiler found") as caught:
            toolchain_of(system.triple)
        assert help in caught.value.help
    with pytest.raises(CompileError, match="no linker found for aarch64-linux-gnu"):
        assembler_of(aarch64_systems.ANDROID.triple)


def test_the_ndk_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "aarch64-linux-android21-clang"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolchain_of(aarch64_systems.ANDROID.triple) == Toolchain((str(compiler),))
