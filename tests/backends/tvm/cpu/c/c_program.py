"""Models that are emitted as C, and the program that uses them, for the tests of the forms of a built model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from programs import SHAPE, network, output_of, run

import lvc
from lvc.compiler.artefact import Artefact
from lvc.compiler.emission import Emission, emit
from lvc.compiler.pipeline.workspace import Workspace

HERE = Path(__file__).parent
COMPILERS = {"gcc": ["gcc"], "clang": ["clang"], "zig": ["zig", "cc"]}
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


@dataclass(frozen=True)
class Example:
    """A built model, an input, its output by Python, and the folder of what was emitted of it."""

    artefact: Artefact
    x: np.ndarray
    output: np.ndarray
    folder: Path

    def emitted(self, form: str, weights: str = "linked", threads: str = "none", name: str = "net") -> Path:
        """The folder of a form; what is there is not made again."""
        folder = self.folder / "-".join([form, weights, threads]) / name
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            emit(self.artefact, folder, Emission(form, name, weights, threads))
        return folder


def made(folder: Path, pipeline: str, target: str = "native", seed: int = 0) -> Example:
    """The network, built by a pipeline."""
    model = network(seed)
    model.preprocessing, model.labels = "layout=bgr,range=symmetric,mean=0.1,std=0.3/0.25/0.7", tuple("abcdefghij")
    images = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    workspace = Workspace(data={"calib": lambda: [(image, None) for image in images]}, threads=1)
    artefact = lvc.compile(model, pipeline, target, verify=False, workspace=workspace)
    return Example(artefact, images[0], output_of(artefact, images[0], target), folder)


def compiler(name: str) -> list[str]:
    """The command of a compiler; the test skips where it is not installed."""
    first, *rest = COMPILERS.get(name, [name])
    versions = sorted(map(str, Path("/usr/bin").glob(f"{first}-[0-9]*")))
    path = shutil.which(first) or next(iter(versions), None)
    if path is None:
        pytest.skip(f"there is no {first}")
    return [path, *rest]


def result(folder: Path, command: list[str], example: Example, files: list[Path], *flags: str) -> bytes:
    """What the program of these tests computes, built in a folder of files that were emitted together."""
    built(folder, command, files, *flags)
    return outcome(folder, ["./use"], example)


def built(folder: Path, command: list[str], files: list[Path], *flags: str) -> None:
    used = [str(HERE / "use.c"), *map(str, files)]
    run(*command, *WARNINGS, "-O1", "-g", *flags, "-I", str(files[0].parent), "-o", "use", *used, folder=folder)


def outcome(folder: Path, program: list[str], example: Example) -> bytes:
    """What it writes for the input of an example."""
    (folder / "input.bin").write_bytes(example.x.tobytes())
    run(*program, "input.bin", "output.bin", folder=folder)
    return (folder / "output.bin").read_bytes()
