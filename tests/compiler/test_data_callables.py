"""Data sets out of the user's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvc.compiler.data import open_data
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec

INPUTS = (Value("x", TensorSpec((1, 3, 4, 5))),)

SOURCE = """
import numpy as np
import torch
from PIL import Image

def pairs():
    return [(np.full((3, 4, 5), i, np.float32), i) for i in range(3)]

def stream():
    yield torch.ones(1, 3, 4, 5), torch.tensor(2)
    yield torch.zeros(1, 3, 4, 5), None

def alone():
    yield np.ones((1, 3, 4, 5))

def images():
    yield Image.new("RGB", (5, 4), (7, 7, 7)), 1
    yield np.full((4, 5, 3), 7, np.uint8), 1

def fails():
    yield np.ones((3, 4, 5)), 0
    raise KeyError("lost")

def nothing():
    return 3

def wrong_label():
    yield np.ones((3, 4, 5)), "cat"

def wrong_type():
    yield "cat", 1

number = 4
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


def read(text: str) -> list[tuple[np.ndarray, int | None]]:
    data = open_data(text, Preprocess.parse("range=255"), INPUTS)
    found = list(data)
    assert len(data) == len(found)
    return found


def test_pairs(source: str) -> None:
    found = read(f"{source}:pairs")
    assert [(float(array.mean()), label) for array, label in found] == [(0, 0), (1, 1), (2, 2)]
    assert found[0][0].shape == (1, 3, 4, 5)


def test_generators_and_tensors(source: str) -> None:
    assert [label for _, label in read(f"{source}:stream")] == [2, None]


def test_inputs_alone(source: str) -> None:
    assert [label for _, label in read(f"{source}:alone")] == [None]


def test_images_are_preprocessed(source: str) -> None:
    assert all((array == 7).all() and array.shape == (1, 3, 4, 5) for array, _ in read(f"{source}:images"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "KeyError: 'lost'"),
        ("nothing", "returned int"),
        ("wrong_label", "a label is 'cat'"),
        ("wrong_type", "a sample"),
        ("number", "no callable 'number'"),
        ("absent", "no callable 'absent'"),
    ],
)
def test_mistakes_in_the_code_are_named(source: str, name: str, message: str) -> None:
    with pytest.raises(LvcError) as caught:
        read(f"{source}:{name}")
    assert message in str(caught.value)


def test_errors_name_the_line_of_the_users_code(source: str) -> None:
    with pytest.raises(CompileError, match="failed") as caught:
        read(f"{source}:fails")
    line = 1 + SOURCE[: SOURCE.index("raise KeyError")].count("\n")
    assert caught.value.where == f"{source}:{line}"


def test_modules_of_the_working_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_module.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    assert len(read("own_data_module:pairs")) == 3


def test_missing_files_and_modules_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read(f"{tmp_path}/absent.py:data")
    with pytest.raises(UsageError, match="there is no Python module"):
        read("no_such_module_at_all:data")
