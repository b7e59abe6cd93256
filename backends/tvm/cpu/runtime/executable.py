"""A built model that can be called."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lvc.backends.tvm.cpu.host import check_host
from lvc.backends.tvm.cpu.runtime.library import Instance, Library
from lvc.backends.tvm.plan import WEIGHTS, read_plan
from lvc.compiler.errors import CompileError, UsageError

ALIGNMENT = 64
LIBRARY = "model.so"


class Executable:
    """Arrays in, arrays out, in the order of the signature.

    May be called from several threads at once: each call under way has an instance of its own, with a workspace and
    threads. Inputs that are contiguous and begin at a multiple of 64 bytes are read where they lie, others are copied.
    ``threads`` is how many threads one call may use, of at most as many as there are cores (default: all).
    """

    def __init__(self, files: Mapping[str, bytes], threads: int | None = None) -> None:
        self.plan = _read_plan(files)
        check_host(self.plan["target"], frozenset(self.plan["features"]), self.plan.get("kind", ""))
        cores = os.cpu_count() or 1
        self.threads = min(threads or cores, cores)
        if len(files[WEIGHTS]) != self.plan["constant_bytes"]:
            raise CompileError("the artefact is damaged", why="its weights have another size than its plan says")
        weights = aligned(len(files[WEIGHTS]))
        weights[:] = np.frombuffer(files[WEIGHTS], np.uint8)
        sizes = [[math.prod(shape) * dtype.itemsize for shape, dtype in side] for side in (self.inputs, self.outputs)]
        self._library = Library(files[LIBRARY], weights, sizes)
        self._first = self._library.create(self.threads)
        self._process = os.getpid()
        self._idle = [self._first]

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
        arrays, results = self._checked(inputs), self._results()
        instance = self._take()
        instance.run(arrays, results)
        self._idle.append(instance)
        return tuple(results)

    def time_steps(
        self, inputs: Sequence[np.ndarray], repeats: int = 10, clock: Callable[[], float] = time.perf_counter
    ) -> list[tuple[str, tuple[str, ...], float]]:
        """Call the kernels one by one; return each step's name, the nodes that it computes, and its least seconds."""
        arrays, results, instance = self._checked(inputs), self._results(), self._take()
        instance.run(arrays, results)
        steps = self.plan["steps"]
        least = [math.inf] * len(steps)
        for _ in range(max(1, repeats)):
            for number in range(len(steps)):
                start = clock()
                instance.run_step(number, arrays, results)
                least[number] = min(least[number], clock() - start)
        self._idle.append(instance)
        return [(step["name"], tuple(step["nodes"]), seconds) for step, seconds in zip(steps, least, strict=True)]

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
            arrays.append(np.ascontiguousarray(array))
        return arrays

    def _results(self) -> list[np.ndarray]:
        return [_empty(shape, dtype) for shape, dtype in self.outputs]

    def _take(self) -> Instance:
        """An instance that no other call has; in a process that was forked a new one, for threads stay behind."""
        if self._process != os.getpid():
            self._idle, self._process = [], os.getpid()
        try:
            return self._idle.pop()  # atomic: no other call can have the same one
        except IndexError:
            return self._library.create(self.threads, self._first)


def aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    return np.asarray(aligned(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape))


def _signature(item: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return tuple(item["shape"]), np.dtype(item["dtype"])


def _read_plan(files: Mapping[str, bytes]) -> dict[str, Any]:
    if LIBRARY not in files:
        raise CompileError("the artefact is incomplete", why=f"it lacks {LIBRARY}")
    return read_plan(files)
