"""TVM's C interface, as far as a built model needs it: tensors, calls, errors, threads.

Only ``libtvm_ffi.so`` and ``libtvm_runtime.so`` are loaded, straight from the installed packages: neither Python
package is imported, since those import PyTorch and take seconds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lvc.compiler.errors import CompileError

_TENSOR_POINTER, _INTEGER = 7, 1  # TVMFFITypeIndex
_CPU = 1  # DLDeviceType
_TYPE_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLDataTypeCode by numpy's kind
SPINS = "2000"  # turns of about a microsecond that a thread waits for its next task before it sleeps
_CONTEXT = ("ParallelLaunch", "AllocWorkspace", "FreeWorkspace")


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Any(ctypes.Structure):
    """TVMFFIAny: a tagged value."""

    _fields_ = [("type_index", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", ctypes.c_int64)]


class _Text(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class Arguments:
    """Arrays as the arguments of a call. Keeps the arrays alive; reads and writes their memory."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays
        self.tensors = [_tensor(array) for array in arrays]
        self.values = (_Any * len(arrays))(*(_Any(_TENSOR_POINTER, 0, ctypes.addressof(t)) for t in self.tensors))


def _tensor(array: np.ndarray) -> _Tensor:
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    code, bits = _TYPE_CODES[array.dtype.kind], array.dtype.itemsize * 8
    return _Tensor(array.ctypes.data, _CPU, 0, array.ndim, code, bits, 1, shape, None, 0)


@cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Load the two libraries.

    Left to itself, TVM's thread pool has at most half of the cores on x86, pins the thread that calls a model, and
    keeps its cores busy for a quarter of a second after each call. These settings are read when the pool starts; what
    the user has set stays.
    """
    os.environ.setdefault("TVM_NUM_THREADS", str(os.cpu_count() or 1))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPINS)
    return _load("tvm_ffi", "libtvm_ffi.so"), _load("tvm", "libtvm_runtime.so")


def _load(package: str, name: str) -> ctypes.CDLL:
    found = importlib.util.find_spec(package)
    file = Path(found.origin).parent / "lib" / name if found and found.origin else None
    if file is None or not file.is_file():
        raise CompileError(f"cannot find {name}", help="install apache-tvm and apache-tvm-ffi")
    return ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


class Library:
    """A shared library of kernels. ``serial`` makes every parallel loop run on the caller's thread."""

    def __init__(self, file: Path, serial: bool) -> None:
        _, runtime = _libraries()
        try:
            self.library = ctypes.CDLL(str(file))
        except OSError as error:
            raise CompileError("the artefact's shared library cannot be loaded", why=str(error)) from error
        for name in _CONTEXT:
            function = getattr(runtime, f"TVMBackend{name}")
            if serial and name == "ParallelLaunch":
                function = self.library.lvc_serial_launch
            self._set(f"__TVMBackend{name}", function)

    def _set(self, name: str, function: Any) -> None:
        try:
            slot = ctypes.c_void_p.in_dll(self.library, name)
        except ValueError:
            return  # no kernel uses it
        slot.value = ctypes.cast(function, ctypes.c_void_p).value

    def call(self, name: str, arguments: Arguments) -> None:
        """Call a function of the library; raises `CompileError` with the kernel's own message if it refuses."""
        function = self.library[f"__tvm_ffi_{name}"]
        result = _Any(0, 0, 0)
        if function(None, arguments.values, ctypes.c_int32(len(arguments.values)), ctypes.byref(result)):
            raise CompileError(f"the kernel '{name}' failed", why="its arguments do not fit the plan")


def configure_threads(threads: int) -> None:
    """Let parallel loops that this thread starts run on so many threads."""
    ffi, _ = _libraries()
    name = b"runtime.config_threadpool"
    handle = ctypes.c_void_p()
    if ffi.TVMFFIFunctionGetGlobal(ctypes.byref(_Text(name, len(name))), ctypes.byref(handle)) or not handle:
        raise CompileError("this TVM runtime has no thread pool")
    values = (_Any * 2)(_Any(_INTEGER, 0, 0), _Any(_INTEGER, 0, threads))
    ffi.TVMFFIFunctionCall(handle, values, 2, ctypes.byref(_Any(0, 0, 0)))
    ffi.TVMFFIObjectDecRef(handle)
