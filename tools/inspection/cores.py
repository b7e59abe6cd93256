"""How long kernels would take on more cores, by the loops over tasks that stand in their code.

Threads take neighbouring tasks, as many each, and tasks of a loop are taken to last equally long. What cores share
(memory, the third level, the clock) is not in it, so that times are the least that may be hoped for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.program import Step

START = 1.5e-6
"""Seconds until another thread has been told of a loop, and its end is known."""


@dataclass(frozen=True)
class TaskLoop:
    """A loop over so many ``tasks``, run so many ``times``, and the ``share`` of its kernel's work that is in it."""

    tasks: int
    share: float
    times: int = 1


@dataclass(frozen=True)
class Timed:
    """A kernel of a model: its ``seconds`` on one core, and the loops over tasks that it runs one after the other."""

    name: str
    seconds: float
    loops: tuple[TaskLoop, ...]

    def on(self, cores: int) -> float:
        """Its seconds on so many."""
        longest = sum(loop.share * -(-loop.tasks // cores) / loop.tasks for loop in self.loops)
        alone = 1 - sum(loop.share for loop in self.loops)
        starts = sum(loop.times for loop in self.loops if min(loop.tasks, cores) > 1)
        return self.seconds * (alone + longest) + START * starts

    def idle(self, cores: int) -> float:
        """The seconds that all cores together wait in it."""
        return cores * self.on(cores) - self.seconds


@dataclass(frozen=True)
class Forecast:
    """A model on so many cores."""

    cores: int
    seconds: float
    gain: float

    @property
    def busy(self) -> float:
        """The share of the cores' time that is work."""
        return self.gain / self.cores

    @classmethod
    def of(cls, kernels: Sequence[Timed], cores: int) -> Forecast:
        seconds = sum(kernel.on(cores) for kernel in kernels)
        return cls(cores, seconds, sum(kernel.seconds for kernel in kernels) / seconds)


def loops_of(step: Step, vector: Vector) -> tuple[TaskLoop, ...]:
    """The loops over tasks of a kernel; what is done in each is told from how many elements or vectors it stores."""
    schedule = Schedule(step.function)
    step.schedule(schedule, vector)
    body = schedule.mod["main"].body
    total = max(_stores(body), 1)
    return tuple(TaskLoop(int(loop.extent), times * _stores(loop) / total, times) for loop, times in _task_loops(body))


def _task_loops(statement: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """The outermost loops over tasks, each with how often it is run."""
    if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
        yield statement, times
        return
    for part, count in _parts(statement):
        yield from _task_loops(part, times * count)


def _stores(statement: Any) -> int:
    """How often something is stored, sums in registers too."""
    here = isinstance(statement, tirx.BufferStore)
    return here + sum(count * _stores(part) for part, count in _parts(statement))


def _parts(statement: Any) -> list[tuple[Any, int]]:
    """The statements within one, and how often each is done: where it depends on something, once."""
    if isinstance(statement, tirx.SeqStmt):
        return [(part, 1) for part in statement.seq]
    if isinstance(statement, tirx.For):
        return [(statement.body, int(statement.extent) if isinstance(statement.extent, tirx.IntImm) else 1)]
    if isinstance(statement, tirx.IfThenElse):
        return [(statement.then_case, 1)]
    inner = getattr(statement, "block", statement)
    body = getattr(inner, "body", None)
    return [] if body is None else [(body, 1)]
