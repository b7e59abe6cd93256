"""Several boards that do pieces of one piece of work, each one at a time.

A board that dies, hangs or lies is retired with a word, and what it was doing is done again by another one. Boards that
emulate have no times to tell; they check what the others compute.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.board import Board
from lvc.compiler.remote.errors import Refused, Retired
from lvc.compiler.remote.oracle import BOUND, difference_of, same_code
from lvc.compiler.text import counted

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact

T = TypeVar("T")
Say = Callable[[str], None]
_TURN = 1.0
"""Seconds after which somebody who waits for a board looks whether there still is one."""


class NoBoards(CompileError):
    """All boards are retired."""


class Team:
    """Boards that do the same, each for one caller at a time; `NoBoards` once none is left."""

    def __init__(self, boards: Sequence[Board], key: bytes, say: Say) -> None:
        self._key = key
        self._say = say
        self._free: queue.Queue[Board] = queue.Queue()
        self._lock = threading.Lock()
        self._all = list(boards)
        self._last: Retired | None = None
        for board in boards:
            self._free.put(board)

    @property
    def boards(self) -> list[Board]:
        """Those that are left."""
        with self._lock:
            return list(self._all)

    def do(self, work: Callable[[Board], T]) -> T:
        """Have a board do a piece of work, and another one if that is retired meanwhile. `Refused` where it works and
        says that it cannot; it is asked again for other pieces."""
        while True:
            board = self._take()
            try:
                found = work(board)
            except Refused:
                self._renew(board)
                raise
            except Retired as error:
                self.retire(board, error)
            except BaseException:
                self._free.put(board)
                raise
            else:
                self._free.put(board)
                return found

    def retire(self, board: Board, error: Retired) -> None:
        """Ask a board no more."""
        with self._lock:
            if board not in self._all:
                return
            self._all.remove(board)
            self._last = error
            left = len(self._all)
        board.close()
        self._say(f"note: retired a board, {left or 'none'} left: {error}")

    def close(self) -> None:
        """Say goodbye to all; who still waits for one is told nothing more."""
        self._say = _nothing
        for board in self.boards:
            board.close()

    def _take(self) -> Board:
        while self.boards:
            try:
                board = self._free.get(timeout=_TURN)
            except queue.Empty:
                continue
            if board in self.boards:
                return board
        why = f"of the last one: {self._last.what}, {self._last.why}" if self._last else "there is none"
        help = "start a server again: what was found is kept, and the same command goes on"
        raise NoBoards("all boards are retired", why=why, help=help)

    def _renew(self, board: Board) -> None:
        """Connect again after a refusal, which ends the connection."""
        board.close()
        try:
            again = Board(board.address, self._key, self._say)
        except Retired as error:
            return self.retire(board, error)
        again.checks = board.checks
        with self._lock:
            self._all[self._all.index(board)] = again
        self._free.put(again)


@dataclass
class Pool:
    """The boards that time, which are one kind of machine, and those that emulate and check."""

    timers: Team
    checkers: Team
    target: str
    processor: str
    known: list[Board] = field(default_factory=list)

    @classmethod
    def connect(cls, addresses: Sequence[Address], key: bytes, say: Say) -> Self:
        """Connect to boards; those that are not there, or another machine than the first, are left out with a word.
        `Retired` if there is none, `UsageError` if none has times to tell."""
        found, last = list[Board](), None
        for address in addresses:
            try:
                found.append(Board(address, key, say))
            except Retired as error:
                last = error
                say(f"note: left out a board: {error}")
        timers = [board for board in found if not board.emulates]
        if not timers:
            if last:
                raise last
            help = "name one that is such a processor too"
            raise UsageError("no board has times to tell", why="they all emulate", help=help)
        first = timers[0]
        others = [board for board in timers if _machine(board) != _machine(first)]
        for board in others:
            say(f"note: left out {board.where}: it is another machine ({board.processor_name}) than {first.where}")
            board.close()
        timers = [board for board in timers if board not in others]
        checkers = [board for board in found if board.emulates]
        known = [*timers, *checkers]
        return cls(Team(timers, key, say), Team(checkers, key, say), first.target, first.processor_name, known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.timers.close()
        self.checkers.close()

    def remarks(self) -> list[str]:
        """How far what boards answered was checked."""
        return [f"{board.where}: {line}" for board in self.known for line in filter(None, board.remark().splitlines())]

    def __str__(self) -> str:
        checking = f", {counted(len(self.checkers.boards), 'emulator')} to check" if self.checkers.boards else ""
        return f"{counted(len(self.timers.boards), 'board')}{checking}: {self.processor}"


def _nothing(text: str) -> None:
    """Say nothing."""


def _machine(board: Board) -> tuple[str, str]:
    return board.target, board.processor_name


@dataclass
class Emulators:
    """The oracle that asks the boards of a pool that emulate. Where one differs from what it shall check, a third
    opinion is that of this machine, if it can run the code: whoever is alone is wrong."""

    artefact: Artefact
    team: Team
    largest: float = 0.0
    name: str = "the same code, emulated by another board"

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        def check(board: Board) -> str:
            model = board.load(self.artefact, 1, Trusted())
            theirs = model(*inputs)
            fault, largest = difference_of(self.artefact, theirs, outputs, self.name)
            if fault and (own := same_code(self.artefact, 1)[0]) and not own.fault(inputs, outputs):
                board.retire("answers wrong numbers", f"it alone finds that {fault}")
            self.largest = max(self.largest, largest)
            return fault

        try:
            return self.team.do(check)
        except (NoBoards, Refused):
            own, _ = same_code(self.artefact, 1)
            return own.fault(inputs, outputs) if own else ""


@dataclass
class Trusted:
    """The oracle of what is an oracle itself."""

    largest: float = BOUND
    name: str = "nothing"

    def fault(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> str:
        return ""
