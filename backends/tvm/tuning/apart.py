"""Work in a fork of this process: what kills it, hangs or is killed leaves this process as it was."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import IO, Any, NoReturn

PATIENCE = 8.0
"""How many times longer than it may compute work may take by the clock, on a machine that others use."""
_PR_SET_PDEATHSIG = 1
_ONE_BY_ONE = threading.Lock()

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Told:
    """What work told, and why it ended early; empty if it did not."""

    messages: list[dict[str, Any]]
    fault: str


def apart(work: Callable[[Tell], None], seconds: float) -> Told:
    """Run work that tells something, for at most so many seconds of computing."""
    with tempfile.TemporaryFile() as talk:
        owner = os.getpid()
        sys.stdout.flush()
        with _ONE_BY_ONE, warnings.catch_warnings():  # another child would keep the pipe open
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of forks with threads: the child starts none of theirs
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.close(reading)
                _be_child(work, writing, talk, owner, seconds)
            os.close(writing)
        try:
            content, is_done = _read(reading, PATIENCE * seconds)
        finally:
            os.close(reading)
            status = _end(child)
        talk.seek(0)
        said = talk.read()[-2000:].decode(errors="replace").strip()
    messages = [json.loads(line) for line in content.split(b"\n")[:-1]]
    return Told(messages, _fault(status, said, seconds) if not is_done or status else "")


def _be_child(work: Callable[[Tell], None], writing: int, talk: IO[bytes], owner: int, seconds: float) -> NoReturn:
    """The child: it ends here, whatever happens, and with its parent."""
    code = 70
    try:
        os.setsid()  # what interrupts the parent is the parent's to handle
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:
            os._exit(code)
        for stream in (1, 2):
            os.dup2(talk.fileno(), stream)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a display's may be locked by another thread
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (max(1, int(seconds)), max(1, int(seconds)) + 2))

        def tell(message: dict[str, Any]) -> None:
            os.write(writing, json.dumps(message).encode() + b"\n")

        work(tell)
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _read(reading: int, seconds: float) -> tuple[bytes, bool]:
    """What a child writes until it ends; False if it does not in time."""
    deadline, parts = time.monotonic() + seconds, list[bytes]()
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part)
    return b"".join(parts), False


def _end(child: int) -> int:
    """End a child that may still run, and all that it started; return its status."""
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _fault(status: int, said: str, seconds: float) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return f"it was still running after {seconds:.0f} s"
        return f"it ended the process with {signal.Signals(number).name}{_last(said)}"
    return f"it failed{_last(said)}"


def _last(said: str) -> str:
    lines = said.splitlines()
    return f": {shorten(lines[-1], 160, placeholder=' ...')}" if lines else ""
