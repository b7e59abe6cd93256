"""The server's side of the process that runs artefacts: it is started, asked, and ended when it crashes or hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lvc.compiler.errors import CompileError
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.handshake import VARIABLE
from lvc.compiler.remote.message import Malformed, Message

BEAT = 2.0
"""Seconds after which somebody who waits is told that the work goes on."""

_START = (
    "import sys; sys.path[:] = {path!r}; from lvc.compiler.remote.worker import main; main({fd}, emulate={emulate})"
)


@dataclass
class _Process:
    program: subprocess.Popen[bytes]
    channel: Channel
    folder: tempfile.TemporaryDirectory[str]


class Supervisor:
    """Has a process of its own run artefacts; one that died is another one at the next request. What it leaves in
    files is in a ``folder`` and goes with it.

    ``limit`` is how many seconds it may be silent, which is as long as one run of a model may take.
    """

    def __init__(self, folder: Path, *, limit: float, emulate: bool) -> None:
        self._folder = folder
        self._limit = limit
        self._emulate = emulate
        self._process: _Process | None = None

    def ask(self, request: Message, wait: Callable[[], None]) -> Message:
        """Return the answer to a request; ``wait`` is called every `BEAT` seconds until then, and what it raises ends
        the process. `CompileError` if the process crashes or is silent for too long."""
        self._process = self._process or self._start()
        try:
            self._process.channel.send(request, self._limit)
            return self._answer(self._process, wait)
        except Malformed as error:
            self.end()
            raise CompileError("the artefact's process answers nonsense", why=error.why) from error
        except (EOFError, OSError) as error:
            raise self._died(error) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the process and those that it started, whatever they do."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.program.pid, signal.SIGKILL)
            self._process.program.wait()
            self._process.channel.close()
            self._process.folder.cleanup()
            self._process = None

    def _answer(self, process: _Process, wait: Callable[[], None]) -> Message:
        deadline = time.monotonic() + self._limit
        while True:
            if not process.channel.has_more(BEAT):
                if time.monotonic() > deadline:
                    raise TimeoutError
                wait()
                continue
            answer = process.channel.receive(self._limit)
            if "beat" not in answer.header:
                return answer
            deadline = time.monotonic() + self._limit
            wait()

    def _died(self, error: EOFError | OSError) -> CompileError:
        assert self._process is not None
        if isinstance(error, TimeoutError):
            self.end()
            why = f"a run of the model took more than {self._limit:g} s"
            return CompileError("the artefact hangs", why=why, help="the server's --limit is how long it may take")
        try:
            code = self._process.program.wait(1)
        except subprocess.TimeoutExpired:
            code = 0
        self.end()
        ending = f"by signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"with {code}"
        return CompileError("the artefact crashed", why=f"its process ended {ending}")

    def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        folder = tempfile.TemporaryDirectory(prefix="process-", dir=self._folder, ignore_cleanup_errors=True)
        with theirs:
            code = _START.format(path=sys.path, fd=theirs.fileno(), emulate=self._emulate)
            try:
                program = subprocess.Popen(
                    [sys.executable, "-c", code],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env={name: os.environ[name] for name in os.environ if name != VARIABLE} | {"TMPDIR": folder.name},
                )
            except OSError as error:
                ours.close()
                folder.cleanup()
                raise CompileError("the board cannot start a process", why=str(error.strerror)) from error
        return _Process(program, Channel(ours), folder)
