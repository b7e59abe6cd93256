"""The C interface of a built model, as ``lvc.h`` declares it, over ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvc.backends.tvm.plan import Plan, Tensor
from lvc.compiler.backend import OtherMachine
from lvc.compiler.device_array import DeviceArray
from lvc.compiler.errors import CompileError
from lvc.compiler.files import Content

VERSION = 1
"""Of the interface: ``LVC_VERSION``."""

TYPE_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
"""What DLPack calls a kind of element types, by NumPy's name."""

_HELP_ELSEWHERE = {
    8: "install NVIDIA's driver, or build it for a CPU, as --target native does",
    9: "run it on a machine with an NVIDIA GPU, or build it for a CPU, as --target native does",
    10: "build it again with --target native-gpu on this machine",
    11: "install a newer driver, or build it with the NVRTC of an older CUDA",
}
"""What to do about ``LVC_NO_DRIVER``, ``LVC_NO_GPU``, ``LVC_OLD_GPU`` and ``LVC_OLD_DRIVER``."""

_VERSIONS = "the artefact's shared library was made by another version of lvc"
_Signature = list[tuple[list[int], int, int]]
_Pointers = ctypes.POINTER(ctypes.c_void_p)


class _Tensor(ctypes.Structure):
    """lvc_tensor."""

    _fields_ = [
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("bytes", ctypes.c_uint64),
    ]


class _Info(ctypes.Structure):
    """lvc_info."""

    _fields_ = [
        ("version", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("input", ctypes.POINTER(_Tensor)),
        ("output", ctypes.POINTER(_Tensor)),
        ("weight_bytes", ctypes.c_uint64),
        ("instance_bytes", ctypes.c_uint64),
    ]


class Library:
    """A shared library of a model; instances of it read ``weights``, which begin at a multiple of 64 bytes.

    It is loaded as long as it or an instance is in use.
    `CompileError` if it cannot be loaded, or is of another model than its plan.
    """

    def __init__(self, content: Content, weights: np.ndarray, plan: Plan) -> None:
        self._library = _load(content)
        unload = weakref.finalize(self, _ctypes.dlclose, self._library._handle)
        unload.atexit = False  # as for instances
        try:
            info = _declare(self._library)
        except AttributeError as error:
            raise CompileError("the artefact's shared library is of no model", why=str(error)) from error
        self._weights, self._target = weights, plan.target.text
        if info.version != VERSION:
            raise CompileError(_VERSIONS, help="build it again")
        planned = [(_signature(v.inputs), _signature(v.outputs), len(v.steps), weights.nbytes) for v in plan.variants]
        if [_described(info), *map(_described, self._others(len(plan.variants)))] != planned:
            raise CompileError("the artefact is damaged", why="its shared library is of another model than its plan")

    def _others(self, variants: int) -> list[_Info]:
        """What the library says of variants behind the first; not asked of one that has no other."""
        if variants == 1:
            return []
        try:
            found = map(_declare_variants(self._library), range(1, variants + 1))
            return [info.contents for info in found if info]
        except AttributeError as error:
            raise CompileError("the artefact's shared library has no variants", why=str(error)) from error

    def create(self, threads: int, shared: Instance | None = None) -> Instance:
        """Make an instance that runs on so many threads; what setup computes may be that of another one."""
        handle, other = ctypes.c_void_p(), shared.handle if shared else None
        weights = self._weights.ctypes.data if len(self._weights) else None  # numpy knows no place of nothing
        self.check(self._library.lvc_model_create(weights, threads, other, ctypes.byref(handle)))
        return Instance(self, handle, shared)

    def check(self, status: int) -> None:
        """Raise `CompileError` for any status but success; `OtherMachine` where another one may run it."""
        if not status:
            return
        text = self._library.lvc_status_text(status).decode(errors="replace")
        if status in _HELP_ELSEWHERE:
            what = f"this artefact was built for {self._target}, and this machine cannot run it"
            raise OtherMachine(what, why=text, help=_HELP_ELSEWHERE[status])
        raise CompileError("the model cannot be run", why=text)

    def run(self, handle: ctypes.c_void_p, variant: int, inputs: object, outputs: object) -> None:
        run = self._library
        self.check(
            run.lvc_run_variant(handle, variant, inputs, outputs) if variant else run.lvc_run(handle, inputs, outputs)
        )

    def run_step(self, handle: ctypes.c_void_p, step: int, inputs: object, outputs: object) -> None:
        self.check(self._library.lvc_run_step(handle, step, inputs, outputs))

    def destroy(self, handle: ctypes.c_void_p) -> None:
        self._library.lvc_model_destroy(handle)


class Instance:
    """A model with memory and threads of its own, for one call at a time."""

    def __init__(self, library: Library, handle: ctypes.c_void_p, shared: Instance | None) -> None:
        self.handle = handle
        self._library = library
        self._shared = shared  # lives as long
        ends = weakref.finalize(self, _destroy, library, handle, os.getpid())
        ends.atexit = False  # a daemon thread may still run it, and the process gives all back

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], variant: int = 0) -> None:
        self._library.run(self.handle, variant, pointers(inputs), pointers(outputs))

    def run_step(self, step: int, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Run one step alone, on what the last run left."""
        self._library.run_step(self.handle, step, pointers(inputs), pointers(outputs))


def _destroy(library: Library, handle: ctypes.c_void_p, process: int) -> None:
    """Free an instance, unless this process was forked from its own: its threads are not here."""
    if process == os.getpid():
        library.destroy(handle)


def pointers(arrays: Sequence[np.ndarray | DeviceArray]) -> ctypes.Array[ctypes.c_void_p]:
    """Where arrays begin."""
    return (ctypes.c_void_p * len(arrays))(*map(_address, arrays))


def _address(array: np.ndarray | DeviceArray) -> int:
    return array.address if isinstance(array, DeviceArray) else array.ctypes.data


def _load(content: Content) -> ctypes.CDLL:
    """Load a library through a file that is gone as soon as it is loaded."""
    try:
        with tempfile.TemporaryDirectory(prefix="lvc-") as folder:
            file = Path(folder) / "model.so"
            file.write_bytes(content)
            return ctypes.CDLL(str(file))
    except OSError as error:
        help = "the environment variable TMPDIR may name a folder that can be written, and from which code may run"
        raise CompileError("the artefact's shared library cannot be loaded", why=str(error), help=help) from error


def _described(info: _Info) -> tuple[_Signature, _Signature, int, int]:
    """What a model says of itself: inputs, outputs, steps and bytes of weights."""
    inputs, outputs = info.input[: info.inputs], info.output[: info.outputs]
    ends = ([(item.shape[: item.rank], item.code, item.bits) for item in side] for side in (inputs, outputs))
    return (*ends, info.steps, info.weight_bytes)


def _signature(tensors: Iterable[Tensor]) -> _Signature:
    return [(list(item.shape), TYPE_CODES[item.dtype.kind], 8 * item.dtype.itemsize) for item in tensors]


def _declare_variants(library: ctypes.CDLL) -> Callable[[int], Any]:
    """Give the functions of variants their types; return what tells of one."""
    library.lvc_variant_info.argtypes = [ctypes.c_int32]
    library.lvc_variant_info.restype = ctypes.POINTER(_Info)
    library.lvc_run_variant.argtypes = [ctypes.c_void_p, ctypes.c_int32, _Pointers, _Pointers]
    return library.lvc_variant_info


def _declare(library: ctypes.CDLL) -> _Info:
    """Give the functions their types; return what the model says of itself."""
    library.lvc_model_info.restype = ctypes.POINTER(_Info)
    library.lvc_status_text.restype = ctypes.c_char_p
    library.lvc_model_create.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, _Pointers]
    library.lvc_run.argtypes = [ctypes.c_void_p, _Pointers, _Pointers]
    library.lvc_run_step.argtypes = [ctypes.c_void_p, ctypes.c_int32, _Pointers, _Pointers]
    library.lvc_model_destroy.argtypes = [ctypes.c_void_p]
    library.lvc_model_destroy.restype = None
    found: _Info = library.lvc_model_info().contents
    return found
