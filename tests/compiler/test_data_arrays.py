"""Data sets in .npz files: images and ready inputs, bounded and never a pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lvc.compiler.data import open_data
from lvc.compiler.data.npy import open_npy
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import converted
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.signature import Value
from lvc.compiler.ir.spec import TensorSpec

INPUTS = (Value("x", TensorSpec((1, 3, 4, 5))),)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 4, 5, 3), np.uint8)


def save(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez_compressed(path, allow_pickle=True, **arrays)  # type: ignore[arg-type]
    return str(path)


def test_images_are_preprocessed(tmp_path: Path) -> None:
    labels = np.arange(6, dtype=np.uint8)
    data = open_data(save(tmp_path, x=IMAGES, y=labels), Preprocess.parse("range=255"), INPUTS)
    assert len(data) == 6
    for index, (array, label) in enumerate(data):
        assert label == index
        np.testing.assert_array_equal(array[0], IMAGES[index].transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_ready_inputs_are_used_as_they_are(tmp_path: Path, dtype: str) -> None:
    ready = RANDOM.standard_normal((3, 3, 4, 5)).astype(dtype)
    found = list(open_data(save(tmp_path, x=ready), Preprocess.parse("imagenet"), INPUTS))
    assert all(label is None for _, label in found)
    assert found[0][0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([array for array, _ in found]), ready.astype(np.float32))


def test_gray_images(tmp_path: Path) -> None:
    inputs = (Value("x", TensorSpec((1, 1, 4, 5))),)
    data = open_data(save(tmp_path, x=IMAGES[..., 0]), Preprocess.parse("layout=gray,range=255"), inputs)
    np.testing.assert_array_equal(next(iter(data))[0][0, 0], IMAGES[0, ..., 0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "no array 'x'"),
        ({"images": IMAGES}, "np.savez"),
        ({"x": IMAGES[:0]}, "empty"),
        ({"x": IMAGES, "y": np.arange(5)}, "6 inputs have 5 labels"),
        ({"x": IMAGES, "y": np.arange(6.0)}, "not a row of class indexes"),
        ({"x": IMAGES, "y": np.full(6, -1)}, "class index"),
        ({"x": np.full((1, 3, 4, 5), np.nan)}, "NaN"),
        ({"x": np.full((1, 3, 4, 5), np.inf)}, "infinity"),
        (
            {"x": np.full((1, 3, 4, 5), 1e39)},
            "the array holds float64 1e+39, and input 'x' takes float32, which cannot",
        ),
        ({"x": np.zeros((2, 3, 9, 5), np.float32)}, "a sample is 3x9x5"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "not numbers"),
        ({"x": np.array(["text"])}, "not numbers"),
        ({"x": np.float32(1)}, "empty"),
        ({"x": np.asfortranarray(np.zeros((2, 3, 4, 5)))}, "column by column"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(open_data(save(tmp_path, **arrays), Preprocess.parse("range=1"), INPUTS))
    assert message in str(caught.value)


def test_numbers_that_an_input_cannot_hold_are_refused() -> None:
    def of(array: np.ndarray, dtype: str) -> np.ndarray:
        return converted(array, np.dtype(dtype), "x", "here")

    kept = [(np.int64([0, 255]), "u1"), (np.uint8([3]), "i8"), (np.float64([0.1]), "f4"), (np.int64(7), "f4")]
    for array, dtype in kept:
        made = of(array, dtype)
        assert (made.shape, made.dtype) == (array.shape, np.dtype(dtype))
        np.testing.assert_allclose(made, array, rtol=1e-7)
    assert np.isinf(of(np.float64([np.inf]), "f2"))
    lost = [([256], "i8", "u1"), ([-1], "i8", "u8"), ([200], "u1", "i1"), ([2], "u1", "?"), ([70_000], "i4", "f2")]
    for numbers, given, dtype in [*lost, ([1e5], "f4", "f2"), ([0.5], "f4", "u1"), ([1.0], "f8", "i8")]:
        with pytest.raises(UsageError, match="and input 'x' takes"):
            of(np.array(numbers, given), dtype)


def test_images_without_a_preprocessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing says how to prepare"):
        open_data(save(tmp_path, x=IMAGES), None, INPUTS)


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((2, 3, 4, 5)) + bytes(100), "ends early"),
        (header((1, 1 << 40)), "ends early"),
        (header((1 << 60,)), "ends early"),
        (header((1 << 60, 0)), "ends early"),
        (b"\x93NUMPY\x09\x00" + bytes(60), "cannot be read"),
        (b"not an array", "cannot be read"),
        (b"", "cannot be read"),
        (header((2, 3), "|O"), "not numbers"),
    ],
)
def test_lying_headers_are_refused_without_allocating(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(UsageError) as caught:
        list(open_data(str(path), None, (Value("x", TensorSpec((1,))),)))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"\x80\x04}q\x00."])
def test_files_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a sound \.npz"):
        open_data(str(path), None, INPUTS)


def test_rows_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, IMAGES)
    array = open_npy(path)
    assert (array.shape, array.dtype) == (IMAGES.shape, np.uint8)
    np.testing.assert_array_equal(np.stack(list(array.rows())), IMAGES)
    np.testing.assert_array_equal(array.read(), IMAGES)
