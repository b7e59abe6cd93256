"""Object files of kernels, and the cache on disk that remembers them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tvm
from tvm import ir
from tvm.s_tir import Schedule

from lvc.backends.tvm.program import Step
from lvc.backends.tvm.schedules.general import GeneralSchedule
from lvc.backends.tvm.vector import Vector
from lvc.compiler.errors import CompileError

KEY_LENGTH = 20


def kernel_key(step: Step, vector: Vector, options: dict[str, object]) -> str:
    """A name for a step's kernel that is equal exactly when the code is."""
    parts = (step.function.script(), str(step.schedule), repr(vector), repr(options), tvm.__version__, _sources())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


def compile_kernel(
    step: Step, name: str, vector: Vector, options: dict[str, object], say: Callable[[str], None] = lambda _: None
) -> bytes:
    """Schedule a step's kernel and compile it to an object file.

    Where TVM refuses the step's own schedule the kernel gets one that asks nothing of it, and ``say`` is told.
    """
    reasons = []
    for attempt in (step.schedule, GeneralSchedule(apart=True), _unscheduled):
        schedule = Schedule(step.function)
        try:
            attempt(schedule, vector)
            return compile_function(schedule.mod["main"].with_attr("global_symbol", name), name, options)
        except Exception as error:  # TVM's checks raise many types
            reasons.append(f"{type(error).__name__}: {_last_line(error)}")
            say(f"note: the kernel of {', '.join(step.nodes)} gets a plain schedule: {reasons[-1]}")
    raise CompileError(f"no kernel can be made for {', '.join(step.nodes)}", why=reasons[-1])


def _unscheduled(schedule: Any, vector: Vector) -> None:
    """Leave a kernel as it was computed: one thread, no vectors of ours."""


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def compile_function(function: Any, name: str, options: dict[str, object]) -> bytes:
    """Compile a TIR function to an object file."""
    library = tvm.compile(ir.IRModule({name: function}), target=options)
    with tempfile.TemporaryDirectory(prefix="lvc-") as folder:
        file = Path(folder) / "kernel.o"
        library.mod.write_to_file(str(file))
        return file.read_bytes()


@cache
def _sources() -> str:
    """A digest of this backend's own code, so that a cached object never outlives the code that made it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class ObjectCache:
    """Object files by key in a folder; a folder that cannot be used is no cache, and no error.

    ``LVC_CACHE`` names the folder, or turns the cache off when it is empty.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls) -> ObjectCache:
        """The cache of this user: ``$LVC_CACHE``, else ``$XDG_CACHE_HOME/lvc/objects``."""
        chosen = os.environ.get("LVC_CACHE")
        if chosen is not None:
            return cls(Path(chosen) if chosen else None)
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(base) / "lvc" / "objects")

    def get(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            return (self.folder / f"{key}.o").read_bytes()
        except OSError:
            return None

    def put(self, key: str, content: bytes) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(self.folder / f"{key}.o")
        except OSError:
            return
