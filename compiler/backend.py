"""What a backend is, what a target is, and what can be called once a model is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lvc.compiler.errors import CompileError, UsageError, did_you_mean
from lvc.compiler.ir.marks import TF32
from lvc.compiler.pipeline import catalogue

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from lvc.compiler.artefact import Artefact
    from lvc.compiler.emission import Emission
    from lvc.compiler.files import Content
    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.remote.pool import Pool
    from lvc.compiler.tuning.kernels import Tunable

EMULATED_MACS = 1e9
"""Models of more multiply-accumulates are emulated only where that is asked for: it takes minutes."""


@dataclass(frozen=True)
class Target:
    """The machine that code is made for, parsed once from text.

    ``cpu`` is LLVM's name of the processor, ``features`` the instruction sets that code may use (``avx2``, ``fma``,
    ``avx512f``, ...). The work of each kernel is cut for so many ``threads``; 0 is as many as is usual.
    """

    text: str
    backend: str
    kind: str
    cpu: str = ""
    features: frozenset[str] = field(default_factory=frozenset)
    threads: int = 0

    @classmethod
    def parse(cls, text: str) -> Target:
        """Find the backend that knows a target text; `UsageError` with a suggestion if none does."""
        known: list[str] = []
        for name in catalogue.BACKENDS.names():
            backend = catalogue.BACKENDS.get(name)
            target = backend.parse_target(text)
            if target is not None:
                return target
            known.extend(backend.targets())
        help = f"{did_you_mean(text, known)}'lvc targets' lists all: {', '.join(known)}"
        raise UsageError(f"there is no target '{text}'", help=help)


class Place(Enum):
    """Where code can be run: on this machine, on this machine by an emulator, or on another one."""

    HERE = "yes"
    EMULATED = "emulated"
    ELSEWHERE = "no"


class OtherMachine(CompileError):
    """Code that this machine cannot run."""


class Executable(Protocol):
    """A loaded model: arrays in, arrays out, in the order of the signature."""

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]: ...


class OnDevice:
    """An executable that takes a `lvc.compiler.device_array.DeviceArray` as well."""

    def write(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Run the model, and write what it gives into arrays of the host or of the device."""
        raise NotImplementedError


class Untimed:
    """An executable whose code is emulated: how long it takes says nothing."""


class Backend(ABC):
    """Turns a model into an artefact, and an artefact into something that can be called.

    ``model_suffix`` ends the names of files in which it keeps a model that can be loaded again; it is empty where code
    is made. ``keeps_simulation`` is True if it writes simulated layers as they are, for another runtime that makes
    integers of them.
    """

    name: ClassVar[str]
    model_suffix: ClassVar[str] = ""
    keeps_simulation: ClassVar[bool] = False

    @abstractmethod
    def targets(self) -> dict[str, str]:
        """Return the target texts that this backend takes, each with one line about it. No heavy import here."""

    @abstractmethod
    def parse_target(self, text: str) -> Target | None:
        """Return the target that a text names, or None if it is not one of this backend's."""

    def refusal(self, elements: Collection[str], target: Target) -> UsageError | None:
        """Why a target cannot multiply elements of types with these names; None if it can. Asked before any work is
        done. What can be said in the graph is left to whoever runs it, what is a mark alone would be lost."""
        if TF32 not in elements:
            return None
        why = "it is a mark that the backend would ignore"
        return UsageError(f"the target '{target.text}' cannot multiply {TF32}", why=why, help="take --precision fp32")

    def missing(self, target: Target) -> CompileError | None:
        """What this machine lacks to make code for a target; None if nothing. Asked before any work is done."""
        return None

    def place(self, target: Target) -> Place:
        """Where code for a target runs, as seen from this machine."""
        return Place.HERE

    def spelling(self, target: Target) -> str:
        """A text that names a target wherever it is read, also where it was called ``native``."""
        return target.text

    def channel_multiple(self, target: Target) -> int:
        """The number that widths should be multiples of, for the kernels of a target to waste nothing."""
        return 1

    def completion(self, model: Model) -> str:
        """The pipeline that a rewritten model still has to go through before it is built; none by default."""
        return ""

    def remarks(self, model: Model, target: Target) -> list[str]:
        """What a user should know about a model that is built for a target, such as a faster way to say the same."""
        return []

    def folders(self) -> dict[str, Path]:
        """What programs around its artefacts are built with, by kind: ``include`` has headers, ``cmake`` a package."""
        return {}

    def forms(self, target: Target) -> Collection[str]:
        """The forms of `lvc.compiler.emission.FORMS` in which it emits what is built for a target, but an artefact."""
        return ()

    def why_only(self, target: Target) -> str:
        """Why what is built for a target has only some of these forms."""
        return "it has to be linked there"

    def emit(self, artefact: Artefact, emission: Emission) -> Mapping[str, Content]:
        """The files of a form that it emits, of an artefact that was built in this process."""
        raise NotImplementedError(emission.form)

    @abstractmethod
    def build(self, model: Model, target: Target, workspace: Workspace) -> Artefact:
        """Make code for a model. The same inputs give the same bytes."""

    def one_shape(self, target: Target) -> str:
        """Why what is built for a target takes its inputs in one shape alone, as a sentence; empty if `build_variants`
        makes it for several."""
        return f"what is built for '{target.text}' takes one shape"

    def build_variants(self, models: Sequence[Model], target: Target, workspace: Workspace) -> Artefact:
        """Make code for a model in several shapes of its inputs, the first of them that of the artefact's own
        signature; for targets that do not take `one_shape`."""
        raise NotImplementedError(target.text)

    def untunable(self, target: Target, *, away: bool = False) -> UsageError | None:
        """Why kernels for a target cannot be tuned, here or ``away`` on boards; None if they can. Asked before any work
        is done."""
        return UsageError(f"'{target.text}' has no kernels to tune", help="tune for a target that is code")

    def tunable(self, model: Model, target: Target, workspace: Workspace, pool: Pool | None = None) -> Tunable:
        """The kernels of a rewritten model that can be made in several ways, for a target that is not `untunable`. They
        are timed on the boards of a pool, or else here."""
        raise NotImplementedError(target.text)

    @abstractmethod
    def load(self, artefact: Artefact, threads: int | None = None) -> Executable:
        """Make an artefact of this backend callable in this process, with that many threads (default: all cores)."""

    def emulate(self, artefact: Artefact, threads: int | None = None) -> Executable:
        """Make an artefact callable, by emulation if this machine cannot run it; `CompileError` if that cannot be."""
        return self.load(artefact, threads)


def check_timed(executable: Executable) -> None:
    """Raise `UsageError` if the times of an executable mean nothing."""
    if isinstance(executable, Untimed):
        raise untimed_emulation()


def untimed_emulation() -> UsageError:
    """Why there are no times of emulated code."""
    return UsageError(
        "emulated code has no times",
        why="how long an emulator takes says nothing about the processor",
        help="'lvc run --emulate' and 'lvc eval --emulate' show what it computes; time it on the processor itself",
    )
