"""Where artefacts run and are timed: the one seam between what measures a model and where it is measured."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lvc.compiler.backend import Executable
from lvc.compiler.loaded import Loaded, load
from lvc.compiler.measure.processor import processor
from lvc.compiler.measure.timing import Timing, interleave

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.pipeline.workspace import Progress

Run = Callable[..., tuple[np.ndarray, ...]]
Call = tuple[Run, Sequence[np.ndarray]]
"""What is called, and with which inputs."""


class Oracle(Protocol):
    """What a model must give. ``name`` says where that comes from, as the end of a sentence."""

    @property
    def name(self) -> str: ...

    @property
    def largest(self) -> float:
        """The largest difference that it let pass, relative to the largest value of an output."""
        ...

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        """What is wrong with the outputs, as a sentence; empty if nothing is."""
        ...


class Device(ABC):
    """A machine that runs artefacts."""

    @property
    @abstractmethod
    def processor(self) -> str:
        """What it calls itself."""

    @property
    @abstractmethod
    def target(self) -> str:
        """The text of the target that it is."""

    @property
    def where(self) -> str:
        """Which board it is; empty for this machine."""
        return ""

    @abstractmethod
    def load(self, artefact: Artefact, threads: int | None = None, oracle: Oracle | None = None) -> Executable:
        """Make an artefact callable there. What comes from elsewhere is held against an oracle, which is found where
        none is given."""

    @abstractmethod
    def time(
        self,
        calls: Sequence[Call],
        *,
        seconds: float = 10.0,
        repeats: int | None = None,
        clock: str = "wall",
        progress: Progress | None = None,
    ) -> list[Timing]:
        """Time calls of what it loaded in turns; see `lvc.compiler.measure.timing.interleave`."""

    @abstractmethod
    def busy(self) -> tuple[float, int]:
        """How many programs want to run there, and how many cores there are."""

    def remark(self) -> str:
        """What whoever reads results of it must know; empty if nothing."""
        return ""

    def open(self, artefact: Artefact, threads: int | None = None) -> Loaded:
        """An artefact in use there."""
        return Loaded(artefact, self.load(artefact, threads))


class ThisMachine(Device):
    """The machine that lvc runs on; with ``emulate`` code for others is emulated, and has no times."""

    target = "native"

    def __init__(self, *, emulate: bool = False) -> None:
        self._emulate = emulate

    @property
    def processor(self) -> str:
        return processor()

    def load(self, artefact: Artefact, threads: int | None = None, oracle: Oracle | None = None) -> Executable:
        return load(artefact, threads, emulate=self._emulate).executable

    def time(
        self,
        calls: Sequence[Call],
        *,
        seconds: float = 10.0,
        repeats: int | None = None,
        clock: str = "wall",
        progress: Progress | None = None,
    ) -> list[Timing]:
        runs = [partial(run, *inputs) for run, inputs in calls]
        return interleave(runs, seconds=seconds, repeats=repeats, clock=clock, progress=progress)

    def busy(self) -> tuple[float, int]:
        return os.getloadavg()[0], os.cpu_count() or 1
