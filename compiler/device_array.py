"""Arrays that lie in the memory of a GPU, of whichever library. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lvc.compiler import dlpack
from lvc.compiler.errors import UsageError

INTERFACE = "__cuda_array_interface__"


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous elements from an ``address`` of the GPU on, which are there as long as their ``owner``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    address: int
    owner: object

    @classmethod
    def of(cls, array: object) -> DeviceArray | None:
        """What an array of PyTorch, CuPy, Numba or JAX says of itself by ``__cuda_array_interface__``, or else by
        ``__dlpack__``; None for what is no array on a GPU. `UsageError` for one that is not contiguous, or not on the
        first GPU."""
        if isinstance(array, np.ndarray):
            return None
        try:
            described = getattr(array, INTERFACE, None)
        except Exception:  # of a tensor on another device, PyTorch raises what is no lack of an attribute
            described = None
        if described is None:
            return cls._of_dlpack(array)
        try:
            shape, dtype = tuple(map(int, described["shape"])), np.dtype(described["typestr"])
            address, strides = int(described["data"][0]), described.get("strides")
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise UsageError(f"an input has no sound {INTERFACE}", why=str(error)) from error
        if strides is not None and tuple(strides) != _contiguous(shape, dtype.itemsize):
            raise UsageError("an input on the GPU is not contiguous", help="make it contiguous there")
        if described.get("mask") is not None:
            raise UsageError("an input is a masked array", why="what it masks would be computed with", help="fill it")
        return cls(shape, dtype, address, array)

    @classmethod
    def _of_dlpack(cls, array: object) -> DeviceArray | None:
        found = dlpack.on_gpu(array)
        if found is None:
            return None
        if found.strides is not None and found.strides != _contiguous(found.shape, 1):
            raise UsageError("an input on the GPU is not contiguous", help="make it contiguous there")
        if found.device:
            raise UsageError(f"an input lies on GPU {found.device}, and models run on GPU 0", help="copy it there")
        return cls(found.shape, found.dtype, found.address, (array, found.capsule))


def _contiguous(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    """Strides in bytes without gaps."""
    strides = []
    for extent in reversed(shape):
        strides.append(item)
        item *= extent
    return tuple(reversed(strides))
