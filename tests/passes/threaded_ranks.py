"""Ranks that are threads of one process: what they compute together is tested without starting processes.

The random numbers of PyTorch are one stream for all threads, so nothing that is drawn may be compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from lvc.compiler.pipeline.ranks import Ranks

T = TypeVar("T")


@dataclass
class Meeting:
    """Where the threads of a group exchange what they have."""

    barrier: threading.Barrier
    brought: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ThreadedRanks(Ranks):
    """A rank that is a thread."""

    meeting: Meeting = field(default_factory=lambda: Meeting(threading.Barrier(1)))

    def _exchange(self, mine: T) -> list[T]:
        self.meeting.brought[self.rank] = mine
        self.meeting.barrier.wait(60)
        found = [self.meeting.brought[rank] for rank in range(self.count)]
        self.meeting.barrier.wait(60)
        return found

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x.copy_(torch.stack(self._exchange(x.clone())).sum(0))

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self._exchange(x.detach().clone()))

    def collect(self, told: bytes) -> list[bytes]:
        return self._exchange(told)

    def hear(self, told: bytes) -> bytes:
        return self._exchange(told)[0]


def together(count: int, work: Callable[[Ranks], T]) -> list[T]:
    """What ``work`` returns in each of so many threads; its error if one raises."""
    meeting = Meeting(threading.Barrier(count))

    def run(rank: int) -> T:
        try:
            return work(ThreadedRanks(rank, count, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(run, rank) for rank in range(count)]
    errors = [error for done in waiting if (error := done.exception())]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [done.result() for done in waiting]
