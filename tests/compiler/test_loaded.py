"""Artefacts that can be called: what they take and what they refuse."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import build, shades

import lvc
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec

GOOD = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture(scope="module")
def loaded() -> lvc.Loaded:
    return lvc.load(build(shades()))


def test_one_output_comes_as_an_array(loaded: lvc.Loaded) -> None:
    scores = loaded(GOOD)
    assert isinstance(scores, np.ndarray)
    assert scores.argmax() == 1


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((), "takes 1 input"),
        ((GOOD, GOOD), "takes 1 input"),
        ((GOOD[:, :1],), r"must be f32\[1,3,8,8\], not f32\[1,1,8,8\]"),
        ((GOOD.astype(np.float64),), r"not f64\["),
        ((GOOD.astype(np.uint16),), r"not uint16\["),
        ((GOOD.astype(">f4"),), "not an array of numbers"),
        ((GOOD.tolist(),), "it is a list"),
        ((torch.ones(1, 3, 8, 8, requires_grad=True),), "cannot be read by __dlpack__"),
        ((torch.ones(1, 3, 8, 8, dtype=torch.bfloat16),), "cannot be read by __dlpack__"),
        ((torch.ones(1, 3, 8, 8, dtype=torch.float64),), r"not f64\["),
        ((torch.ones(1, 3, 8, 8, device="meta"),), "it is a Tensor"),
        ((None,), "it is a NoneType"),
        ((np.ma.masked_less(GOOD, 2),), "masked array"),
    ],
)
def test_what_does_not_fit_is_refused(loaded: lvc.Loaded, inputs: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UsageError) as error:
        loaded(*inputs)
    assert re.search(says, str(error.value))


def test_arrays_of_other_libraries_are_read_where_they_lie(loaded: lvc.Loaded) -> None:
    drawn = torch.rand(1, 8, 8, 3).permute(0, 3, 1, 2)  # it is not contiguous
    np.testing.assert_array_equal(loaded(drawn), loaded(np.ascontiguousarray(drawn.numpy())))


def test_pictures_are_prepared_as_the_file_says() -> None:
    model = shades()
    model.preprocessing = "resize=8x8,range=255"
    loaded, frame = lvc.load(build(model)), np.full((20, 30, 3), 3, np.uint8)
    for picture in (frame, Image.fromarray(frame)):
        scores = loaded(loaded.prepare(picture))
        assert isinstance(scores, np.ndarray)
        assert scores.argmax() == 3
    with pytest.raises(UsageError, match="an image must be uint8"):
        loaded.prepare(frame.astype(np.float32))


def test_a_file_that_does_not_say_how_is_told(loaded: lvc.Loaded) -> None:
    with pytest.raises(UsageError, match="nothing says how to prepare"):
        loaded.prepare(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_threads_is_refused(threads: Any) -> None:
    with pytest.raises(UsageError, match="threads must be an integer from 1"):
        lvc.load(build(shades()), threads=threads)


def test_cores_are_those_of_the_affinity() -> None:
    code = (
        "import os; from lvc.compiler.threads import usable_cores, usable_threads\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "assert usable_cores() == usable_threads(None) == usable_threads(8) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_seeded_inputs_are_those_of_their_seed() -> None:
    values = tuple(Value(name, TensorSpec((2, 3), name)) for name in ("f32", "f64", "f16", "i64", "u8", "bool"))
    first, again, other = (seeded_inputs(values, seed) for seed in (0, 0, 1))
    assert [str(array.dtype) for array in first] == [value.spec.type_name for value in values]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert first[0].tolist()[0] == pytest.approx([0.12573022, -0.13210486, 0.64042265])
    assert all(set(array.ravel().tolist()) <= {0, 1} for array in first[3:])


def test_seeded_inputs_of_scalars_and_of_types_without_arrays() -> None:
    number, whole = seeded_inputs((Value("x", TensorSpec(())), Value("n", TensorSpec((), "i32"))), 0)
    assert (number.shape, number.dtype, whole.shape, whole.dtype) == ((), np.float32, (), np.int32)
    pytest.importorskip("ml_dtypes")  # with it numpy knows the name
    with pytest.raises(UsageError, match="bfloat16"):
        seeded_inputs((Value("x", TensorSpec((2,), "bf16")),), 0)


def test_a_path_that_can_be_none_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        lvc.load("a\0b.lvc")
