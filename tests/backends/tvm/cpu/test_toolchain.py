"""Toolchains: which compiler links code for a triple, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from lvc.backends.tvm.cpu import toolchain
from lvc.backends.tvm.cpu.architectures.x86_64 import X86_64
from lvc.backends.tvm.cpu.toolchain import Toolchain, gnu_triple, toolchain_of
from lvc.compiler.errors import CompileError

ARM = "aarch64-unknown-linux-gnu"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the path, on a machine whose own triple is that of x86-64, without ziglang."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "machine_architecture", lambda: X86_64)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    return tmp_path


def put(folder: Path, name: str, script: str = "exit 0") -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_triples_name_compilers_without_a_vendor() -> None:
    assert gnu_triple(ARM) == gnu_triple("aarch64-linux-gnu") == "aarch64-linux-gnu"
    assert gnu_triple("armv7a-unknown-linux-gnueabihf") == "arm-linux-gnueabihf"


def test_the_own_compiler_links_for_the_own_triple_alone(folder: Path) -> None:
    own, cross = put(folder, "cc"), put(folder, "aarch64-linux-gnu-gcc")
    assert toolchain_of(X86_64.triple) == Toolchain((own,))
    assert toolchain_of(ARM) == Toolchain((cross,))


def test_ziglang_links_for_any_triple(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang")
    for triple in (ARM, X86_64.triple):
        wanted = (sys.executable, "-m", "ziglang", "cc", "-target", gnu_triple(triple))
        assert toolchain_of(triple) == Toolchain(wanted)


@pytest.mark.parametrize(
    ("triple", "package"), [(ARM, "gcc-aarch64-linux-gnu"), (X86_64.triple, "gcc libc6-dev")], ids=["cross", "own"]
)
def test_without_a_linker_it_is_said_what_to_install(triple: str, package: str, folder: Path) -> None:
    with pytest.raises(CompileError, match=f"no linker found for {gnu_triple(triple)}") as caught:
        toolchain_of(triple)
    assert f"{gnu_triple(triple)}-gcc" in caught.value.why
    assert f"apt-get install {package})" in caught.value.help
    assert "pip install ziglang" in caught.value.help


def test_what_a_compiler_says_is_told(folder: Path) -> None:
    compiler = put(folder, "cc", "echo no room left >&2; exit 1")
    with pytest.raises(CompileError, match="linking the model failed") as caught:
        Toolchain((compiler,)).link({}, {"model.c": ""}, "lvc_*")
    assert (caught.value.where, caught.value.why) == (compiler, "no room left")


def test_objects_lie_in_the_order_of_their_sizes(folder: Path) -> None:
    """Kernels that differ in constants alone are of one size, and side by side deflation sees that."""
    compiler = put(folder, "cc", "/bin/cat objects > model.so")
    content = Toolchain((compiler,)).link({"a": b"333", "c": b"1", "d": b"22", "b": b"22"}, {}, "lvc_*")
    assert content == b"c.o\nb.o\nd.o\na.o\n"
