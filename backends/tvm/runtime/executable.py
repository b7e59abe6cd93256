"""A built model that can be called."""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lvc.backends.tvm.plan import WEIGHTS, Tensor, read_plan
from lvc.backends.tvm.runtime.library import Library
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.files import Content
from lvc.compiler.threads import usable_threads

ALIGNMENT = 64
LIBRARY = "model.so"


class Runs(Protocol):
    """A model with memory of its own, for one call at a time."""

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], variant: int = 0) -> None: ...

    def run_step(self, step: int, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None: ...


class Code(Protocol):
    """A model of which there can be as many instances as are needed, one of which may share memory with another."""

    def create(self, threads: int, shared: Any = None) -> Runs: ...


@dataclass(frozen=True)
class Stepper:
    """Runs a step by its number, as often as wanted, on what lies in the inputs and into the outputs."""

    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    run: Callable[[int], None]


class Executable(ABC):
    """Arrays in, arrays out, in the order of the signature; of the first variant that takes arrays of their shapes.

    May be called from several threads at once: each call under way has an instance of its own, with a workspace and
    threads. Inputs that are contiguous and begin at a multiple of 64 bytes are read where they lie, others are copied.
    ``threads`` is how many threads one call may use, of at most as many as this process has cores (default: all).
    `CompileError` for files that are damaged, of several models, or for another machine.
    """

    def __init__(self, files: Mapping[str, Content], threads: int | None = None) -> None:
        self.plan = read_plan(files)
        self._check_machine()
        self.plan.check_files(files)
        if LIBRARY not in self.plan.checksums:
            raise CompileError("the artefact is damaged", why=f"its plan is of no {LIBRARY}")
        self.threads = usable_threads(threads)
        self._library = self._open(files)
        self._first = self._library.create(self.threads)
        self._process = os.getpid()
        self._idle = [self._first]

    def __call__(self, *inputs: Any) -> tuple[np.ndarray, ...]:
        """Run the model; `UsageError` if an input does not fit the signature."""
        variant = self._variant(inputs)
        arrays, results = self._checked(inputs, variant), self._results(variant)
        instance = self._take()
        instance.run(arrays, results, variant)
        self._idle.append(instance)
        return tuple(results)

    def time_steps(
        self, inputs: Sequence[np.ndarray], repeats: int = 10, clock: Callable[[], float] = time.perf_counter
    ) -> list[tuple[str, tuple[str, ...], float]]:
        """Call the kernels one by one; return each step's name, the nodes that it computes, and its least seconds."""
        arrays, results, instance = self._checked(inputs), self._results(), self._take()
        instance.run(arrays, results)
        steps = self.plan.steps
        least = [math.inf] * len(steps)
        for _ in range(max(1, repeats)):
            for number in range(len(steps)):
                start = clock()
                instance.run_step(number, arrays, results)
                least[number] = min(least[number], clock() - start)
        self._idle.append(instance)
        return [(step.name, step.nodes, seconds) for step, seconds in zip(steps, least, strict=True)]

    def stepper(self, inputs: Sequence[np.ndarray], *, in_one: bool = False) -> Stepper:
        """What runs its steps one by one on inputs, and where these and the outputs lie; with ``in_one`` all outputs,
        which have one type, in one place."""
        arrays = [_placed_as(array) for array in self._checked(inputs)]
        instance, results = self._take(), self._results()
        instance.run(arrays, results)
        if in_one and len({(result.shape, result.dtype) for result in results}) == 1:
            results = results[:1] * len(results)
        return Stepper(arrays, results, lambda step: instance.run_step(step, arrays, results))

    @abstractmethod
    def peak_flops(self) -> float:
        """Floating-point operations a second that its threads together can do in code for its target, measured; 0 where
        nothing measures them."""

    @abstractmethod
    def _check_machine(self) -> None:
        """Raise `OtherMachine` if this machine cannot run its code."""

    def _open(self, files: Mapping[str, Content]) -> Code:
        """Its code."""
        return Library(files[LIBRARY], placed(files[WEIGHTS]), self.plan)

    def _variant(self, inputs: Sequence[Any]) -> int:
        """The variant that takes arrays of these shapes; the first where none does."""
        shapes = [np.shape(array) for array in inputs]
        fitting = (n for n, one in enumerate(self.plan.variants) if [value.shape for value in one.inputs] == shapes)
        return next(fitting, 0)

    def _checked(self, inputs: Sequence[Any], variant: int = 0) -> list[Any]:
        expected = self.plan.variants[variant].inputs
        if len(inputs) != len(expected):
            raise UsageError(f"the model takes {len(expected)} input(s), {len(inputs)} given")
        arrays = []
        for number, (array, wanted) in enumerate(zip(inputs, expected, strict=True)):
            array = self._readable(array)
            if (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
                given = f"{array.dtype}{list(array.shape)}"
                raise UsageError(f"input {number} must be {wanted.dtype}{list(wanted.shape)}, not {given}")
            arrays.append(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array)
        return arrays

    def _readable(self, array: Any) -> Any:
        """An input as its code can read it."""
        return np.asarray(array)

    def _results(self, variant: int = 0) -> list[np.ndarray]:
        return [_empty(result) for result in self.plan.variants[variant].outputs]

    def _take(self) -> Runs:
        """An instance that no other call has; in a process that was forked a new one, for threads stay behind."""
        if self._process != os.getpid():
            self._idle, self._process = [], os.getpid()
        try:
            return self._idle.pop()  # atomic: no other call can have the same one
        except IndexError:
            return self._library.create(self.threads, self._first)


def placed(content: Content) -> np.ndarray:
    """Bytes where they lie if they begin at a multiple of 64, else a copy that does."""
    array = np.frombuffer(content, np.uint8)
    if array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned(len(content))
    copy[:] = array
    return copy


def aligned(size: int) -> np.ndarray:
    """Bytes that begin at a multiple of 64."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _placed_as(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return np.asarray(copy)


def _empty(result: Tensor) -> np.ndarray:
    size = math.prod(result.shape) * result.dtype.itemsize
    return np.asarray(aligned(size).view(result.dtype).reshape(result.shape))
