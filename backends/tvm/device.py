"""What the storey that knows no chip asks of a storey that knows one: the one protocol between the two.

A kind of device is a folder beside this file whose ``device.py`` names its `Device` as ``DEVICE``: the targets that
there are, what is known of each before a model is loaded, and the `CodeGenerator` of one. Lowering and building know
the latter alone, so they are the same for every device.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvc.compiler.backend import Place
from lvc.compiler.errors import CompileError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch.fx import Graph, Node

    from lvc.backends.tvm.layout import Layout
    from lvc.backends.tvm.object_cache import Object
    from lvc.backends.tvm.ops.table import Call
    from lvc.backends.tvm.program import Program, ScheduleFunction, Step
    from lvc.backends.tvm.scope import Array
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Executable, Target
    from lvc.compiler.emission import Emission
    from lvc.compiler.files import Content
    from lvc.compiler.ir.model import Model
    from lvc.compiler.measure.kernels import KernelsAccount
    from lvc.compiler.measure.memory import Memory


@dataclass(frozen=True)
class Assembled:
    """The files with a program's code, and the parts of which its device makes other forms."""

    files: Mapping[str, bytes]
    parts: object = None


@dataclass(frozen=True)
class Anchor:
    """The result of a kernel's contraction before the elementwise work, and how to schedule the whole.

    ``shape`` is the shape in memory in which the kernel writes, where it differs from that of the layout.
    """

    array: Array
    schedule: ScheduleFunction
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Calls of a graph, in its order, that a target has one kernel for, though they are more than one contraction and
    elementwise work on its result.

    The nodes named in ``stages`` become stages of the kernel's function, by whose names the ``schedule`` knows them. It
    writes what ``written`` computes, whose elements are those of the last call in the same order.
    """

    nodes: tuple[Node, ...]
    stages: Mapping[Node, str]
    written: Node
    schedule: ScheduleFunction


class NoSuchWay(Exception):
    """A choice that a kernel does not have; a sentence."""


@dataclass(frozen=True)
class Ways:
    """In which ways a kernel may be made: choices as texts, each a JSON object of a name and of integers.

    ``structure`` is all that tells the kernel from others, but for which of its ways is taken; ``rule`` is the one that
    its rule picks. ``all`` finds every one, with what a cost model thinks of it, lower being better. The best may take
    so many times less work than the definition, in single precision, as ``saving`` says.
    """

    structure: str
    rule: str
    all: Callable[[], Iterator[tuple[str, float]]]
    saving: float = 1.0


class Linker(Protocol):
    """A compiler of C that links too."""

    def link(
        self,
        objects: Mapping[str, bytes],
        sources: Mapping[str, str | Content],
        exported: str,
        *,
        name: str = "model.so",
    ) -> bytes:
        """A shared library of object files and of sources, with what these include; it shows only names that match
        ``exported``, and is found by a ``name``."""
        ...


@dataclass(frozen=True)
class Host:
    """A processor that drives a device: its ``kind``, as plans have it, and what makes code for it."""

    kind: str
    linker: Linker


@dataclass(frozen=True)
class Peak:
    """A program of one kernel that does nothing but multiply and add: so many ``operations`` in a run on its inputs."""

    program: Program
    files: Mapping[str, bytes]
    inputs: Sequence[np.ndarray]
    operations: float


class CodeGenerator(ABC):
    """Makes code for one target."""

    @property
    @abstractmethod
    def block(self) -> int:
        """Channels in a block of a blocked layout: elements that one instruction, or one group of threads, takes."""

    @property
    @abstractmethod
    def alignment(self) -> int:
        """A value that lies inside another one must begin at a multiple of so many bytes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """All that its code depends on beside kernels and their schedules."""

    @property
    def host(self) -> str:
        """The kind of processor that runs the code around the kernels, where that is not of the target's kind."""
        return ""

    @property
    def flags(self) -> Mapping[str, object]:
        """What the operating system of a machine must say of it, beside its kind, if it can run the code."""
        return {}

    @abstractmethod
    def wanted_layout(self, node: Node, operand: Node, layout: Layout) -> Layout:
        """The layout in which a call's kernel reads an operand that lies in ``layout``."""

    @abstractmethod
    def anchor(self, call: Call, choice: str = "") -> Anchor | None:
        """The kernel of a call's own, by the first rule that has one; None where the general form must do.

        With a ``choice`` the one that it names of those that `ways` tells; `NoSuchWay` if it names none.
        """

    def groups(self, graph: Graph) -> Iterable[Group]:
        """The groups of a graph's calls that it has kernels for; none has a call of another."""
        return ()

    def chosen(self, schedule: ScheduleFunction, choice: str) -> ScheduleFunction:
        """The schedule of a group's kernel in the way that a ``choice`` names; `NoSuchWay` if it has none such."""
        raise NoSuchWay("it is made in one way")

    def ways(self, schedule: ScheduleFunction) -> Ways | None:
        """In which ways the kernel of a schedule may be made; None where there is but one."""
        return None

    @abstractmethod
    def general_schedule(self, *, apart: bool) -> ScheduleFunction:
        """The schedule of a kernel that has none of its own; its stages stand ``apart`` where TVM cannot say which
        part of one another reads."""

    @abstractmethod
    def compile(self, step: Step, name: str) -> Object:
        """Schedule a step's kernel and compile it under a name; `CompileError` if that cannot be done at all."""

    @abstractmethod
    def assemble(
        self, program: Program, kernels: Sequence[str], objects: Mapping[str, Object], memory: Memory
    ) -> Assembled:
        """Make a program's code. ``kernels`` names the kernel of each step, those of setup first."""

    def account(self, parts: object, macs: Mapping[str, int]) -> KernelsAccount | None:
        """What kernels take of the device, of the parts of an assembled program whose nodes multiply and add so often;
        None where nothing tells."""
        return None


class Device(ABC):
    """A kind of device. Nothing heavy is imported before code is made: PyTorch and TVM take seconds."""

    @property
    @abstractmethod
    def kinds(self) -> Collection[str]:
        """The kinds of its targets."""

    @abstractmethod
    def targets(self) -> dict[str, str]:
        """Every target text that it takes, with one line about it."""

    @abstractmethod
    def parse_target(self, text: str) -> Target | None:
        """The target of a text, or None."""

    @abstractmethod
    def block(self, target: Target) -> int:
        """Channels in a block of a blocked layout."""

    @abstractmethod
    def lacks(self, element: str, target: Target) -> str:
        """Why a target cannot multiply elements of a type; empty if it can."""

    @abstractmethod
    def that_multiply(self, element: str) -> list[str]:
        """The target texts that can."""

    def why_untunable(self, target: Target) -> str:
        """Why kernels for a target cannot be tuned on any machine; empty if they can."""
        return ""

    def missing(self, target: Target) -> CompileError | None:
        """What this machine lacks to make code for a target; None if nothing."""
        return None

    def place(self, target: Target) -> Place:
        """Where code for a target runs, as seen from this machine."""
        return Place.HERE

    def spelling(self, target: Target) -> str:
        """A text that names a target on any machine."""
        return target.text

    def processor(self, target: Target, machine: str = "") -> str:
        """What times of code for a target are known by: equal for processors on which they are worth the same.
        ``machine`` is what the processor that runs it calls itself, by default this machine's."""
        return self.spelling(target)

    def peak(self, target: Target) -> Peak | None:
        """What tells the peak of a machine that runs code for a target; None if there is no such thing."""
        return None

    def one_shape(self, target: Target) -> str:
        """Why code for a target takes its inputs in one shape alone; empty if a program may have `others`."""
        return f"the entry of code for '{target.text}' is written for one shape"

    def remarks(self, model: Model, target: Target) -> list[str]:
        """What a user should know about a model that is built for a target."""
        return []

    @property
    def own_kind(self) -> str:
        """What plans call the processor of this machine, if this device has it; else empty."""
        return ""

    def host(self, kind: str = "") -> Host | None:
        """The processor of a kind, by default of this machine's, that drives other devices; None if it is none of
        these. `CompileError` where nothing makes code for it."""
        return None

    def folders(self) -> dict[str, Path]:
        """What programs around artefacts for it are built with, by kind; see `lvc.compiler.backend.Backend`."""
        return {}

    def forms(self, target: Target) -> Collection[str]:
        """The forms in which code for a target is emitted."""
        from lvc.compiler.emission import ARTEFACT

        return (ARTEFACT,)

    def why_only(self, target: Target) -> str:
        """Why code for a target has only some of the forms."""
        return "it has to be linked there"

    def emit(self, artefact: Artefact, emission: Emission) -> Mapping[str, Content]:
        """The files of a form that it emits, of an artefact that has its parts."""
        raise NotImplementedError(emission.form)

    @abstractmethod
    def code_generator(self, target: Target, dtypes: Collection[torch.dtype] = ()) -> CodeGenerator:
        """What makes code for a target, of models that multiply numbers of such types."""

    @abstractmethod
    def load(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        """Make the files of an artefact callable in this process."""

    def emulate(self, files: Mapping[str, Content], threads: int | None) -> Executable:
        """Make the files of an artefact callable, by emulation if this machine cannot run them."""
        return self.load(files, threads)


@cache
def devices() -> tuple[Device, ...]:
    """All kinds of devices."""
    folders = sorted(file.parent.name for file in Path(__file__).parent.glob("*/device.py"))
    return tuple(importlib.import_module(f"lvc.backends.tvm.{folder}.device").DEVICE for folder in folders)


def device_of(kind: str) -> Device | None:
    """The kind of device that has targets of a kind; None if there is none."""
    return next((device for device in devices() if kind in device.kinds), None)


def own_kind() -> str:
    """What plans call the processor of this machine; empty if it is not known."""
    return next((kind for device in devices() if (kind := device.own_kind)), "")


def host_of(kind: str = "") -> Host:
    """The processor of a kind, by default of this machine's, that drives a device; `CompileError` if nothing makes code
    for it."""
    found = next((host for device in devices() if (host := device.host(kind))), None)
    if found is None:
        raise CompileError(
            f"no code can be made for {kind or 'the processor of this machine'}, which drives the device"
        )
    return found
