"""A built model that can be called."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lvc.backends.tvm.cpu.host import check_host
from lvc.backends.tvm.cpu.runtime.abi import Arguments, Library, configure_threads
from lvc.backends.tvm.plan import WEIGHTS, read_plan
from lvc.compiler.errors import CompileError, UsageError

ALIGNMENT = 64
LIBRARY = "model.so"


class Executable:
    """Arrays in, arrays out, in the order of the signature.

    May be called from several threads at once: each call under way has a workspace of its own. Inputs that are
    contiguous and begin at a multiple of 64 bytes are read where they lie, others are copied. ``threads`` is how many
    threads one call may use (default: all cores).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int | None = None) -> None:
        self.plan = _read_plan(files)
        check_host(self.plan["target"], frozenset(self.plan["features"]), self.plan.get("kind", ""))
        self.threads = threads or os.cpu_count() or 1
        self.constants = aligned(max(1, self.plan["constant_bytes"] + self.plan["prepared_bytes"]))
        if len(files[WEIGHTS]) != self.plan["constant_bytes"]:
            raise CompileError("the artefact is damaged", why="its weights have another size than its plan says")
        self.constants[: self.plan["constant_bytes"]] = np.frombuffer(files[WEIGHTS], np.uint8)
        self.library = _load_library(files[LIBRARY], self.threads == 1)
        self._prepare_constants()
        self.workspaces: list[np.ndarray] = []
        self.local = threading.local()

    def _prepare_constants(self) -> None:
        """Fill in the constants that are made from stored ones."""
        if self.plan["setup"]:
            self._use_threads()
            self.library.call(self.plan["setup_entry"], Arguments([self.constants]))

    @cached_property
    def inputs(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of each input."""
        return [_signature(item) for item in self.plan["inputs"]]

    @cached_property
    def outputs(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of each output."""
        return [_signature(item) for item in self.plan["outputs"]]

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the model; `UsageError` if an input does not fit the signature."""
        arrays = self._checked(inputs)
        results = [_empty(shape, dtype) for shape, dtype in self.outputs]
        workspace = self._take_workspace()
        self._use_threads()
        self.library.call(
            self.plan["entry"], Arguments([*arrays, *map(_tensor_of, results), self.constants, workspace])
        )
        self.workspaces.append(workspace)
        return tuple(results)

    def time_steps(self, inputs: Sequence[np.ndarray], repeats: int = 10) -> list[tuple[str, tuple[str, ...], float]]:
        """Call the kernels one by one; return each step's name, the nodes that it computes, and its least seconds."""
        external = {
            "input": self._checked(inputs),
            "output": [_tensor_of(_empty(shape, dtype)) for shape, dtype in self.outputs],
        }
        internal = {"constant": self.constants, "workspace": self._take_workspace()}
        self._use_threads()
        steps = [
            (step, Arguments([_view(a, external, internal) for a in step["arguments"]])) for step in self.plan["steps"]
        ]
        least = [math.inf] * len(steps)
        for _ in range(max(1, repeats)):
            for number, (step, arguments) in enumerate(steps):
                start = time.perf_counter()
                self.library.call(step["kernel"], arguments)
                least[number] = min(least[number], time.perf_counter() - start)
        return [(step["name"], tuple(step["nodes"]), seconds) for (step, _), seconds in zip(steps, least, strict=True)]

    def peak_flops(self) -> float:
        """Floating-point operations a second that its threads together can do in code for its target, measured."""
        from lvc.backends.tvm.cpu.peak import peak_flops
        from lvc.compiler.backend import Target

        plan = self.plan
        target = Target(plan["target"], "tvm", plan.get("kind", ""), plan["cpu"], frozenset(plan["features"]))
        return self.threads * peak_flops(target)

    def _checked(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(inputs) != len(self.inputs):
            raise UsageError(f"the model takes {len(self.inputs)} input(s), {len(inputs)} given")
        arrays = []
        for number, (array, (shape, dtype)) in enumerate(zip(inputs, self.inputs, strict=True)):
            array = np.asarray(array)
            if array.shape != shape or array.dtype != dtype:
                given = f"{array.dtype}{list(array.shape)}"
                raise UsageError(f"input {number} must be {dtype}{list(shape)}, not {given}")
            arrays.append(_tensor_of(_placed(array)))
        return arrays

    def _take_workspace(self) -> np.ndarray:
        try:
            return self.workspaces.pop()  # atomic: no other call can have the same one
        except IndexError:
            return aligned(max(1, self.plan["workspace_bytes"]))

    def _use_threads(self) -> None:
        """The thread pool belongs to the calling thread, which other models use too."""
        if self.threads > 1:
            configure_threads(self.threads)


def aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    return np.asarray(aligned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape))


def _placed(array: np.ndarray) -> np.ndarray:
    """The array itself if kernels can read it where it lies, else a copy."""
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = _empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _tensor_of(array: np.ndarray) -> np.ndarray:
    """Kernels see a scalar as a vector of one element."""
    return np.atleast_1d(array)


def _signature(item: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return tuple(item["shape"]), np.dtype(item["dtype"])


def _view(
    argument: Mapping[str, Any], external: Mapping[str, list[np.ndarray]], internal: Mapping[str, np.ndarray]
) -> np.ndarray:
    """An argument of a step as an array over its memory."""
    shape, dtype = _signature(argument)
    if argument["kind"] in external:
        return np.asarray(external[argument["kind"]][argument["position"]].reshape(shape))
    size = math.prod(shape) * dtype.itemsize
    start = argument["position"]
    return np.asarray(internal[argument["kind"]][start : start + size].view(dtype).reshape(shape))


def _read_plan(files: Mapping[str, bytes]) -> dict[str, Any]:
    if LIBRARY not in files:
        raise CompileError("the artefact is incomplete", why=f"it lacks {LIBRARY}")
    return read_plan(files)


def _load_library(content: bytes, serial: bool) -> Library:
    """Load a library from bytes, through a private file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lvc-") as folder:
        file = Path(folder) / "model.so"
        file.write_bytes(content)
        return Library(file, serial)
