"""Arrays of other libraries by DLPack (https://dmlc.github.io/dlpack), without those libraries.

Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from lvc.compiler.errors import UsageError

_HOST, _CUDA = 1, 2  # kDLCPU, kDLCUDA
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode, as NumPy calls them
_NO_WAITING = -1  # of a stream: whoever runs a model waits for all
_MOST_DIMENSIONS = 64


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("device_number", ctypes.c_int32),
        ("dimensions", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class Described:
    """An array in memory of a GPU: strides are in elements, None without gaps; it is there as long as ``capsule``."""

    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    address: int
    device: int
    capsule: object


def on_gpu(array: object) -> Described | None:
    """What an array on a GPU says of itself; None for any other object. `UsageError` if it does not say what DLPack
    asks for."""
    if _kind(array) != _CUDA:
        return None
    try:
        capsule = array.__dlpack__(stream=_NO_WAITING)  # type: ignore[attr-defined]
    except Exception as error:  # whatever the other library raises
        raise UsageError("an input on the GPU gives no sound __dlpack__", why=str(error)) from error
    return _described(capsule)


def on_host(array: object) -> np.ndarray | None:
    """An array of another library in memory of the host, where it lies; None for any other object. `UsageError` if it
    cannot be read so."""
    if _kind(array) != _HOST:
        return None
    try:
        return np.from_dlpack(array)  # type: ignore[arg-type]
    except Exception as error:  # whatever the other library raises
        raise UsageError("an input cannot be read by __dlpack__", why=str(error)) from error


def _kind(array: object) -> int | None:
    """The kind of device that an array lies on; None for what is no array by DLPack."""
    try:
        kind, _ = array.__dlpack_device__()  # type: ignore[attr-defined]
        return int(kind)
    except Exception:  # it is no array of this kind, whatever it says
        return None


def _described(capsule: object) -> Described:
    of_capsule = ctypes.pythonapi.PyCapsule_GetPointer
    of_capsule.restype, of_capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    try:
        tensor = _Tensor.from_address(of_capsule(capsule, b"dltensor"))
    except (ValueError, TypeError) as error:
        raise UsageError("an input on the GPU gives no sound __dlpack__", why=str(error)) from error
    rank = tensor.dimensions
    if tensor.code not in _KINDS or tensor.lanes != 1 or tensor.bits % 8 or not 0 <= rank <= _MOST_DIMENSIONS:
        why = f"it has type {tensor.code} of {tensor.bits} bits in {tensor.lanes} lanes and {rank} dimensions"
        raise UsageError("an input on the GPU has elements that models do not take", why=why)
    try:
        dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    except TypeError as error:
        raise UsageError("an input on the GPU has elements that models do not take", why=str(error)) from error
    strides = tuple(tensor.strides[:rank]) if tensor.strides else None
    address = (tensor.data or 0) + tensor.offset
    return Described(tuple(tensor.shape[:rank]), strides, dtype, address, tensor.device_number, capsule)
