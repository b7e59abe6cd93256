"""A board of a test's own that keeps files, computes what they say, and takes times out of thin air."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from device_servers import FACTS, board_that

from lvc.backends.tvm.plan import read_plan
from lvc.compiler import container
from lvc.compiler.loaded import Loaded, load
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.message import Message

Pace = Callable[[int, int], float]
"""The microseconds of a contestant, by its number and that of the control."""


def even(number: int, control: int) -> float:
    """All but the incumbent are faster by a fifth."""
    return 10.0 if number in (0, control) else 8.0


def uneven(number: int, control: int) -> float:
    return 20.0 if number == control else even(number, control)


class Sham:
    """What it answers; ``change`` is what it makes of the outputs of races."""

    def __init__(
        self, folder: Path, pace: Pace = even, change: Callable[[np.ndarray], np.ndarray] = lambda array: array
    ) -> None:
        self._folder = folder
        self._pace = pace
        self._change = change
        self.files: dict[str, bytearray] = {}
        self.asked: list[str] = []
        self._loaded: dict[str, Loaded] = {}

    def put(self, request: Message) -> Message:
        content = self.files.setdefault(request.header["digest"], bytearray())
        content += request.arrays[0].tobytes()
        return Message({"kept": len(content) >= request.header["bytes"]})

    def answer(self, request: Message, channel: Channel) -> Message:
        what = request.header["do"]
        self.asked.append(what)
        loaded = self._load(request.header["models"][0]["digest"])
        outputs = loaded.executable(*request.arrays)
        if what == "steps":
            steps = read_plan(loaded.artefact.files).steps
            seconds = [1e-5, 1e-4, *[1e-5] * len(steps)]  # a convolution that is far from its roof
            found = [[step.name, list(step.nodes), each] for step, each in zip(steps, seconds, strict=False)]
            return Message({"steps": found}, outputs)
        assert what == "race"
        control, rounds = request.header["control"], request.header["fewest"]
        times = [np.full(rounds, 1e-6 * self._pace(number, control)) for number in range(len(outputs))]
        return Message({}, [*times, *map(self._change, outputs)])

    def _load(self, digest: str) -> Loaded:
        if digest not in self._loaded:
            file = self._folder / f"{digest}.lvc"
            file.write_bytes(self.files[digest])
            self._loaded[digest] = load(container.read(file), 1, emulate=True)
        return self._loaded[digest]


@contextmanager
def sham_board(folder: Path, facts: dict[str, Any], *arguments: Any) -> Iterator[tuple[Sham, Address]]:
    """Start one that says so of itself."""
    folder.mkdir()
    board = Sham(folder, *arguments)
    with board_that(board.answer, {**FACTS, **facts}, put=board.put) as address:
        yield board, address
