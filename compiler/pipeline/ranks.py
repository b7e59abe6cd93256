"""The processes that run one command together, as ``torchrun`` starts them.

Rank 0 leads: it does what one process would do, and it alone writes and talks. The others follow: they wait until it
comes to a pass that is divided, are given the model as it is then, and run that pass with it, each on its share of the
images. So only passes that are divided know of this, and no two processes have to come to the same decision each by
itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.threads import usable_cores

if TYPE_CHECKING:
    import torch

    from lvc.compiler.ir.model import Model
    from lvc.compiler.pipeline.passes import Pass

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for others that are at the same pass; one that dies is noticed at once."""

_PAUSE = 0.02  # seconds between two looks for work
_END = b"end"
_STARTED = "TORCHELASTIC_RUN_ID"


class Ended(BaseException):
    """The process was told to end: another one died, or ``torchrun`` was stopped. No work may go on after it."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``count`` that work together. This class itself is for one that works alone."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """The place among the processes of this machine."""
    neighbours: int = 1
    """How many processes this machine has."""

    @property
    def follows(self) -> bool:
        return self.rank > 0

    @property
    def threads(self) -> int:
        """The share of the cores of this machine that this process may use."""
        return max(1, usable_cores() // self.neighbours)

    def share(self, count: int, unit: int = 1, first: int = 0) -> range:
        """This process's share of so many things, whose order is kept: whole units, the first rank at least ``first``
        things where there are so many."""
        units = -(-count // unit)
        ahead = max(-(-units // self.count), min(units, -(-first // unit)))
        rest = units - ahead
        ends = [0, *(ahead + rest * rank // max(1, self.count - 1) for rank in range(self.count))]
        return range(min(count, ends[self.rank] * unit), min(count, ends[self.rank + 1] * unit))

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum tensors of the same shape over all processes, in place."""
        return x

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, of the same shape, joined along the first dimension in the order of ranks."""
        return x

    def collect(self, told: bytes) -> list[bytes]:
        """What each process has to tell, in the order of ranks."""
        return [told]

    def hear(self, told: bytes) -> bytes:
        """What the leading process has to tell."""
        return told

    def call(self, item: Pass, model: Model) -> None:
        """Have those that follow run a pass on a model: this process will run it now."""

    def follow(self, work: Callable[[str, Model], object]) -> None:
        """Do ``work``, with the text of a pass and a model, as often as the leading process calls for it."""

    def claims_error(self) -> bool:
        """Whether it is for this process to tell the user of an error: one of them does."""
        return True

    def end(self, code: int) -> int:
        """End what is done together; those that follow end too. Returns the exit code, or ends the process with it."""
        return code


ALONE = Ranks()


def are_started(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return _STARTED in environment and int(environment.get("WORLD_SIZE", "1")) > 1


def join(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Join the processes that ``torchrun`` started; `ALONE` where it did not, or started one.

    `UsageError` if the others cannot be reached.
    """
    return _Group.of(environment) if are_started(environment) else ALONE


@dataclass(frozen=True)
class _Group(Ranks):
    store: Any = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> _Group:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of what fails lvc tells itself
        import torch
        from torch import cuda, distributed
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        signal.signal(signal.SIGTERM, _end)
        torch.set_num_threads(max(1, usable_cores() // int(environment.get("LOCAL_WORLD_SIZE", "1"))))
        rank, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        is_server = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        try:
            served = TCPStore(host, port, None, is_server, _PATIENCE)
            store = PrefixStore(f"lvc-{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", served)
            backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise UsageError(f"process {rank} cannot reach the others at {host}:{port}", why=why) from error
        local, neighbours = (int(environment.get(name, "1")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        return cls(rank, count, local, neighbours, store)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        from torch import distributed

        with _together():
            distributed.all_reduce(x)
        return x

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        import torch
        from torch import distributed

        found = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.count)]
        with _together():
            distributed.all_gather(found, x.contiguous())
        return torch.cat(found)

    def collect(self, told: bytes) -> list[bytes]:
        import torch

        sizes = self.gather(torch.tensor([len(told)])).tolist()
        content = torch.zeros(max(1, *sizes), dtype=torch.uint8)
        content[: len(told)] = _numbers(told)
        rows = self.gather(content[None])
        return [row[:size].numpy().tobytes() for row, size in zip(rows, sizes, strict=True)]

    def hear(self, told: bytes) -> bytes:
        import torch
        from torch import distributed

        size = torch.tensor([len(told)])
        with _together():
            distributed.broadcast(size, 0)
            content = torch.zeros(max(1, int(size)), dtype=torch.uint8)
            if not self.follows:
                content[: len(told)] = _numbers(told)
            distributed.broadcast(content, 0)
        return content[: int(size)].numpy().tobytes()

    def call(self, item: Pass, model: Model) -> None:
        from lvc.compiler.ir.serialise import GRAPH, WEIGHTS, to_files

        if self.follows:
            return
        files = to_files(model)
        with _together():
            self.store.set(f"work {self.store.add('works', 1)}", str(item).encode())
        self.hear(files[GRAPH])
        self.hear(files[WEIGHTS])

    def follow(self, work: Callable[[str, Model], object]) -> None:
        from lvc.compiler.ir.serialise import GRAPH, WEIGHTS, from_files

        number = 1
        while (text := self._next(number)) != _END:
            files = {name: self.hear(b"") for name in (GRAPH, WEIGHTS)}
            work(text.decode(), from_files(files))
            number += 1

    def _next(self, number: int) -> bytes:
        key = f"work {number}"
        with _together():
            while not self.store.check([key]):
                time.sleep(_PAUSE)
            found: bytes = self.store.get(key)
        return found

    def claims_error(self) -> bool:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is told is told to its end
        try:
            return int(self.store.add("errors", 1)) == 1
        except RuntimeError:  # the leading process kept it, and is gone
            return self.rank < 2

    def end(self, code: int) -> int:
        from torch import distributed

        if not self.follows:
            with suppress(RuntimeError):  # nobody may be left to be told
                self.store.set(f"work {self.store.add('works', 1)}", _END)
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # where others are gone, threads of PyTorch wait for them
        distributed.destroy_process_group()
        return code


def lost() -> CompileError:
    """The error for work that other processes no longer share."""
    return CompileError(
        "another process of this command ended, and so did the work that they share",
        why="it was killed, or its machine or the way to it failed; or torchrun was stopped",
        help="torchrun tells which; with --checkpoints training goes on where it was, with any number of processes",
    )


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost() from error


def _numbers(content: bytes) -> torch.Tensor:
    import torch

    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _end(*_: object) -> NoReturn:
    raise Ended
