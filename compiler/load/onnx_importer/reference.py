"""What an ONNX file computes by itself: run by ONNX Runtime if it is installed, else by ``onnx.reference``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx

from lvc.compiler.ir.model import Reference
from lvc.compiler.verification import run_onnx

LIMIT_SECONDS = 60.0
"""How long one run of a file may take."""

HALF_BOUND = 5e-2
"""How far a file in half precision may be from the same in single precision, relative."""


@dataclass(frozen=True)
class FileRun:
    """A file with the names of what it takes and gives; ``frozen`` are inputs that have values already."""

    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frozen: Mapping[str, np.ndarray]
    engine: str

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Run it in a process of its own; `RuntimeError` says why it failed."""
        request = {
            "file": str(self.file.resolve()),
            "names": [*self.inputs, *self.frozen],
            "outputs": list(self.outputs),
            "engine": self.engine,
        }
        given = io.BytesIO()
        np.savez(given, *inputs, *self.frozen.values(), allow_pickle=False)
        message = json.dumps(request).encode() + b"\n" + given.getvalue()
        with np.load(io.BytesIO(_answer(message)), allow_pickle=False) as found:
            return tuple(_single(found[f"arr_{number}"]) for number in range(len(self.outputs)))


def _answer(message: bytes) -> bytes:
    command = [sys.executable, "-P", str(Path(run_onnx.__file__))]
    try:
        done = subprocess.run(command, input=message, capture_output=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it took longer than {LIMIT_SECONDS:.0f} s") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else f"it ended with exit code {done.returncode}")
    return done.stdout


def _single(array: np.ndarray) -> np.ndarray:
    """Half precision is widened, as it is in the model."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def file_reference(
    file: Path, proto: onnx.ModelProto, inputs: Sequence[str], frozen: Mapping[str, np.ndarray], *, is_half: bool
) -> Reference:
    """The reference of a file that was parsed as ``proto``; ``inputs`` are the names of those that are not frozen.

    A file that ``is_half`` somewhere rounds where the model does not.
    """
    from lvc.compiler.load.onnx_importer.bisection import first_difference

    engine, name = _engine()
    run = FileRun(file, tuple(inputs), tuple(value.name for value in proto.graph.output), dict(frozen), engine)
    bound = HALF_BOUND if is_half else Reference.bound
    return Reference(name, run, bound, engine != "onnxruntime", lambda given: first_difference(run, given, bound))


def only(run: FileRun, file: Path, output: str) -> FileRun:
    """The same inputs, and one output, of another file."""
    return replace(run, file=file, outputs=(output,))


def _engine() -> tuple[str, str]:
    """What runs ONNX files here, and its name with the version."""
    try:
        return "onnxruntime", f"ONNX Runtime {version('onnxruntime')}"
    except PackageNotFoundError:
        return "onnx.reference", f"onnx.reference {version('onnx')}"
