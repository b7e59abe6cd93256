"""An artefact, and the program that uses it, for the tests of the interface in C++."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from programs import SHAPE, network, output_of, run

import lvc
from lvc.backends.tvm import runtime
from lvc.compiler import container

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


def made(folder: Path, pipeline: str, target: str = "native") -> Example:
    """An artefact of the network, whose instances have something to share, in a folder with its input."""
    model = network()
    model.labels, model.preprocessing = LABELS, PREPROCESSING
    artefact = lvc.compile(model, pipeline, target, verify=False)
    assert json.loads(bytes(artefact.files["plan.json"]))["prepared_bytes"]
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    example = Example(container.pack(artefact), folder, output_of(artefact, x, target))
    Path(example.file).write_bytes(example.content)
    Path(example.input).write_bytes(x.tobytes())
    return example


def built(folder: Path, *flags: str, compiler: str = "") -> str:
    """The program of these tests."""
    program = str(folder / "use")
    command = [
        compiler or COMPILERS[0],
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
    run(*command, timeout=None)  # a compiler takes long with sanitizers on a busy machine
    return program
