"""An artefact, and the program that uses it, for the tests of the interface in C++."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvc.backends.tvm.cpu import runtime

HERE = Path(__file__).parent
RUNTIME = Path(runtime.__file__).parent
INCLUDE = RUNTIME / "include"
COMPILERS = [path for name in ("g++", "clang++") if (path := shutil.which(name))]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
LABELS = ("zero", 'quo"te', "back\\slash", "naïve", "七", "😀", "", "line\nbreak", "8", "9")
PREPROCESSING = "resize=20,crop=16,layout=rgb,range=1,mean=0.5,std=0.25"


@dataclass(frozen=True)
class Example:
    """An artefact in bytes, an input, and its output by Python."""

    content: bytes
    folder: Path
    output: np.ndarray

    @property
    def file(self) -> str:
        return str(self.folder / "model.lvc")

    @property
    def input(self) -> str:
        return str(self.folder / "input.bin")

    @property
    def entries(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def built(folder: Path, *flags: str) -> str:
    """The program of these tests."""
    program = str(folder / "use")
    command = [
        COMPILERS[0],
        "-std=c++17",
        "-g",
        *WARNINGS,
        f"-I{INCLUDE}",
        *flags,
        str(HERE / "use.cpp"),
        "-o",
        program,
        "-pthread",
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return program


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, input=text)
    assert not done.returncode, done.stderr[-4000:]
    return done.stdout
