"""Reading ``.npy`` and ``.npz`` row by row: the header first, with bounds, and never a pickle."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from lvc.compiler.data.samples import check_row
from lvc.compiler.errors import UsageError

_MOST_COMPRESSION = 1100  # deflate cannot do better than 1032 to 1
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Array:
    """An array in a file: known by its header, read when it is needed. ``member`` is its entry in an ``.npz``."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def where(self) -> str:
        return f"{self.path}, array '{self.member.removesuffix('.npy')}'" if self.member else str(self.path)

    def rows(self) -> Iterator[np.ndarray]:
        """Yield the array along its first dimension, one row in memory at a time."""
        size = check_row(self.dtype, self.shape[1:], self.where)
        with _opened(self.path, self.member) as file:
            _read_header(file, self.where)
            for _ in range(self.shape[0]):
                content = file.read(size)
                if len(content) != size:
                    raise UsageError("the array ends early", where=self.where)
                yield np.frombuffer(content, self.dtype).reshape(self.shape[1:])

    def read(self) -> np.ndarray:
        """Read the whole array; its size is bounded as that of a sample is."""
        whole = Array(self.path, self.member, (1, *self.shape), self.dtype)
        return next(whole.rows())

    @property
    def bytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def stack(self) -> np.ndarray:
        """Read all rows into one array, however many they are."""
        made = np.empty(self.shape, self.dtype)
        for place, row in enumerate(self.rows()):
            made[place] = row
        return made


def open_npy(path: Path) -> Array:
    """Read the header of an ``.npy`` file."""
    with _opened(path, "") as file:
        array = Array(path, "", *_read_header(file, str(path)))
    _check_extent(array, path.stat().st_size)
    return array


def open_npz(path: Path) -> dict[str, Array]:
    """Read the headers of the arrays of an ``.npz`` file, by name."""
    with _safely(path), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    most = path.stat().st_size * _MOST_COMPRESSION
    arrays = {}
    for info in members:
        name = info.filename.removesuffix(".npy")
        with _opened(path, info.filename) as file:
            array = Array(path, info.filename, *_read_header(file, f"{path}, array '{name}'"))
        _check_extent(array, min(info.file_size, most))
        arrays[name] = array
    return arrays


def _check_extent(array: Array, held: int) -> None:
    """Refuse a header that promises more rows or bytes than its file can hold."""
    if array.bytes > held or array.shape[:1] > (held,):
        raise UsageError("the array ends early", where=array.where)


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    with _safely(path):
        if not member:
            with path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file


@contextmanager
def _safely(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UsageError(f"'{path}' is not a sound .npz file", why=str(error)) from error


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    try:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = _HEADER_READERS[version](file)
    except (ValueError, KeyError, EOFError) as error:
        raise UsageError("the array cannot be read", where=where, why=str(error).splitlines()[0]) from error
    if dtype.hasobject or dtype.kind not in "fiub":
        raise UsageError(f"the array holds {dtype}, not numbers", where=where, why="pickled objects are never loaded")
    if fortran and len(shape) > 1:
        raise UsageError("the array is stored column by column", where=where, help="save np.ascontiguousarray(x)")
    return shape, dtype
