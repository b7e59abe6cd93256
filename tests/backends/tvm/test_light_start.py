"""What only looks at a built model or runs it imports neither PyTorch nor TVM nor ONNX, which take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_classifier import picture_classifier
from PIL import Image

from lvc.compiler import container, driver

AFTER = """
heavy = {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
COMMAND = "import sys; from lvc.compiler.cli import main\nif code := main(sys.argv[1:]): sys.exit(code)\n" + AFTER
LOAD = (
    "import sys, lvc, numpy\n"
    "loaded = lvc.load(sys.argv[1], threads=2)\n"
    "scores = loaded(numpy.load(sys.argv[2]))\n"
    "assert scores.shape == (1, 4) and scores.any()\n"
    "assert str(loaded.inputs[0]) == 'x: f32[1,3,8,8]'\n"
    "assert 'libtvm' not in open('/proc/self/maps').read()\n"
) + AFTER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``a.lvc``, and a photograph and an array to run it on."""
    made = tmp_path_factory.mktemp("light")
    container.write(driver.compile(picture_classifier(), "O2", "x86-64-v2", verify=False), made / "a.lvc")
    np.save(made / "x.npy", np.ones((1, 3, 8, 8), np.float32))
    Image.new("RGB", (9, 7), (30, 90, 200)).save(made / "x.png")
    np.savez(made / "data.npz", x=np.full((3, 9, 7, 3), 90, np.uint8), y=np.arange(3))
    return made


def run(folder: Path, code: str, *arguments: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("inspect a.lvc", "conv2d"),
        ("inspect a.lvc --json", '"macs": 768'),
        ("run a.lvc", "probability"),
        ("run a.lvc x.png x.npy --json", '"probability"'),
        ("run a.lvc x.npy -o out.npz", "probability"),
        ("eval a.lvc --data data.npz", "top-1"),
        ("targets", "onnx-21"),
    ],
)
def test_commands_on_an_artefact_import_nothing_heavy(folder: Path, command: str, says: str) -> None:
    assert says in run(folder, COMMAND, *command.split())


def test_loading_and_calling_imports_nothing_heavy(folder: Path) -> None:
    run(folder, LOAD, "a.lvc", "x.npy")


def test_inspect_needs_no_numpy(folder: Path) -> None:
    run(folder, COMMAND + 'assert "numpy" not in sys.modules', "inspect", "a.lvc")
