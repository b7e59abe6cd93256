"""Runs what was built for a GPU on the CPU, every access to memory checked: see ``emulator.hpp``."""

from __future__ import annotations

import atexit
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lvc.backends.tvm.gpu.compiled import PlannedLaunch
from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.printer import PRELUDE
from lvc.backends.tvm.plan import WEIGHTS
from lvc.backends.tvm.program import ITEM_BYTES, Argument, Kind, Step
from lvc.compiler.artefact import Artefact

FLAGS = ("-O1", "-std=c++17", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-w")
FOLDER = Path(__file__).parent
_POISON = 0xFF


class EmulationError(AssertionError):
    """A kernel does what it may not: a race, an access out of bounds, a vector that is not aligned, ..."""


class _Given(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("elements", ctypes.c_longlong), ("is_written", ctypes.c_int))


@dataclass
class Counts:
    """Of the accesses of one warp of each launch: sectors of global memory and passes over the banks of shared memory,
    and how many of each there would be at least."""

    sectors: int = 0
    least_sectors: int = 0
    wavefronts: int = 0
    least_wavefronts: int = 0

    @property
    def coalesced(self) -> float:
        """The share of what is fetched that is asked for."""
        return self.least_sectors / self.sectors if self.sectors else 1.0

    @property
    def conflict_free(self) -> float:
        """The share of passes over the banks that no conflict adds."""
        return self.least_wavefronts / self.wavefronts if self.wavefronts else 1.0


@dataclass
class Emulated:
    """A model on the emulated GPU. ``edit`` may change the text of its kernels first, as saboteurs do."""

    artefact: Artefact
    edit: Callable[[str], str] = lambda text: text
    counts: dict[str, Counts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.artefact.parts
        assert isinstance(parts, Parts)
        self.parts = parts
        made = parts.compiled.values()
        launches = [launch for compiled in made for launch in compiled.launches]
        self.library = library_of("\n".join(self.edit(compiled.text) for compiled in made), launches)

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the model; `EmulationError` tells what a kernel did wrong."""
        parts, program = self.parts, self.parts.program
        weights = bytes(self.artefact.files[WEIGHTS])
        constants = memory(parts.memory.weights + parts.memory.prepared)
        constants[: len(weights)] = np.frombuffer(weights, np.uint8)
        outputs = [memory(argument.bytes) for argument in program.outputs]
        spaces = {
            Kind.CONSTANT: [constants],
            Kind.WORKSPACE: [memory(parts.memory.workspace)],
            Kind.INPUT: [_copied(values) for values in inputs],
            Kind.OUTPUT: outputs,
        }
        for name, step in zip(parts.kernels, [*program.setup, *program.steps], strict=True):
            self._step(name, step, spaces)
        return tuple(
            made.view(np.dtype(argument.dtype)).reshape(argument.shape).copy()
            for made, argument in zip(outputs, program.outputs, strict=True)
        )

    def _step(self, name: str, step: Step, spaces: dict[Kind, list[np.ndarray]]) -> None:
        addresses = [_address(argument, spaces) for argument in step.arguments]
        scratch = [memory(size) for size in self.parts.scratch[name]]
        addresses += [memory.ctypes.data for memory in scratch]
        for launch in self.parts.compiled[name].launches:
            self._launch(step, launch, addresses)

    def _launch(self, step: Step, launch: PlannedLaunch, addresses: Sequence[int]) -> None:
        try:
            self.counts[f"{step.name} {launch.name}"] = run_launch(self.library, launch, addresses)
        except EmulationError as error:
            raise EmulationError(f"{step.name}, {launch.name}: {error}") from error


def run_launch(library: ctypes.CDLL, launch: PlannedLaunch, addresses: Sequence[int]) -> Counts:
    """Run one launch of a library's kernel; `EmulationError` tells what it did wrong."""
    given = (_Given * len(launch.parameters))(
        *(_Given(addresses[p.argument], p.elements, p.is_written) for p in launch.parameters)
    )
    counts = (ctypes.c_longlong * 4)()
    run: Any = getattr(library, f"run_{launch.name}")
    run.restype = ctypes.c_char_p
    error = run(given, counts)
    if error:
        raise EmulationError(error.decode())
    return Counts(*counts)


@cache
def _emulator() -> Path:
    """The compiled emulator."""
    made = Path(tempfile.mkdtemp(prefix="lvc-emulator-")) / "libemulator.so"
    atexit.register(shutil.rmtree, made.parent, ignore_errors=True)
    _compile(FOLDER / "emulator.cpp", made)
    return made


def _compile(source: Path, made: Path, *more: str) -> None:
    command = ["g++", *FLAGS, f"-I{FOLDER}", "-shared", "-fPIC", str(source), "-o", str(made), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[:4000]


def library_of(text: str, launches: Sequence[PlannedLaunch]) -> ctypes.CDLL:
    """Kernels in CUDA C, compiled for the CPU."""
    with tempfile.TemporaryDirectory(prefix="lvc-emulated-") as folder:
        return ctypes.CDLL(str(library_file(text, launches, Path(folder))))


def library_file(text: str, launches: Sequence[PlannedLaunch], folder: Path) -> Path:
    """A library in a folder of kernels in CUDA C, compiled for the CPU, with the table of ``table.hpp``."""
    lines = ['#include "emulator.hpp"', PRELUDE, text, *map(_entry, launches)]
    rows = (
        f'{{"{launch.name}", {launch.blocks}, {launch.threads}, {len(launch.parameters)}, of_{launch.name}, '
        f"run_{launch.name}}},"
        for launch in launches
    )
    lines += ['extern "C" const Kernel lvc_kernels[] = {', *rows, "{}};"]
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text("\n".join(lines))
    emulator = _emulator()
    _compile(source, library, str(emulator), f"-Wl,-rpath,{emulator.parent}")
    return library


def _entry(launch: PlannedLaunch) -> str:
    count = len(launch.parameters)
    call = f"[] {{ {launch.name}({', '.join(map(str, range(count)))}); }}"
    rows = ", ".join(f"{{{p.elements}, {int(p.is_written)}, {ITEM_BYTES[p.dtype]}}}" for p in launch.parameters)
    return (
        f"static const KernelParameter of_{launch.name}[] = {{{rows}}};\n"
        f'extern "C" const char *run_{launch.name}(const Given *given, long long *counts) {{\n'
        f"  return lvc_emulator::launch({launch.blocks}, {launch.threads}, given, {count}, counts, {call});\n}}"
    )


def _address(argument: Argument, spaces: dict[Kind, list[np.ndarray]]) -> int:
    storage = argument.place.storage
    if storage.kind in (Kind.INPUT, Kind.OUTPUT):
        return int(spaces[storage.kind][storage.position].ctypes.data) + argument.place.offset
    return int(spaces[storage.kind][0].ctypes.data) + storage.position + argument.place.offset


def _copied(values: np.ndarray) -> np.ndarray:
    made = memory(values.nbytes)
    made[: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return made


def memory(size: int) -> np.ndarray:
    """Bytes at a multiple of 256, as the driver allocates them, of NaN."""
    room = np.full(max(size, 1) + 256, _POISON, np.uint8)
    start = -room.ctypes.data % 256
    return room[start : start + size] if size else room[start : start + 1]
