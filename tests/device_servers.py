"""Device servers for tests: a real one in a process of its own, and one whose answers a test decides."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lvc.compiler.errors import LvcError
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.handshake import admit
from lvc.compiler.remote.message import Message

KEY = b"0123456789abcdef0123456789abcdef"
COMMAND = [sys.executable, "-m", "lvc", "serve-device"]


@dataclass
class Server:
    """A server, and where it says what happens."""

    process: subprocess.Popen[str]
    address: Address
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def serving(folder: Path, *options: str, command: list[str] = COMMAND, key: Path | None = None) -> Iterator[Server]:
    """Start a server on a free port of this machine; it is stopped at the end, if it still runs."""
    key = key or key_file(folder)
    log = folder / "said.txt"
    arguments = [*command, "--port", "0", "--key-file", str(key), "--json", *options]
    with log.open("w") as told:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=told, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, log.read_text()
        text += line
    try:
        yield Server(process, Address("127.0.0.1", json.loads(text)["port"]), log)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()  # which leaves no files, as killing does
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def key_file(folder: Path, content: bytes = KEY) -> Path:
    path = folder / "board.key"
    path.touch(0o600)
    path.write_bytes(content)
    return path


FACTS: dict[str, Any] = {
    "processor": "Testium 9000",
    "machine": "testium",
    "cores": 4,
    "target": "x86-64-v2",
    "load": 0.0,
    "version": "0",
}
Answer = Callable[[Message, Channel], Message | None]
"""What is answered to a request; None to end the connection."""


@contextmanager
def board_that(
    answer: Answer,
    facts: dict[str, Any] | None = None,
    put: Callable[[Message], Message] = lambda _: Message({"kept": True}),
) -> Iterator[Address]:
    """A server in a thread that knows the key, keeps what it is sent, and answers the rest as a test wants."""
    listening = socket.create_server(("127.0.0.1", 0))

    def respond(channel: Channel) -> None:
        while True:
            request = channel.receive(600)
            known: dict[str, Callable[[], Message | None]] = {
                "describe": lambda: Message(facts or FACTS),
                "put": partial(put, request),
            }
            found = known.get(request.header["do"], partial(answer, request, channel))()
            if found is None:
                return
            channel.send(found)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    respond(admit(connection, KEY))
                except (EOFError, OSError, LvcError):
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Address("127.0.0.1", listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def honest(run: Callable[..., tuple[np.ndarray, ...]]) -> Answer:
    """What a board answers that does its work, in a tenth of a millisecond a run."""

    def answer(request: Message, channel: Channel) -> Message:
        outputs = run(*request.arrays)
        if request.header["do"] == "time":
            rows = [np.full(request.header["repeats"] or 5, 1e-9) for _ in request.header["models"]]
            each = len(request.arrays) // len(rows)
            outputs = tuple(out for turn in range(len(rows)) for out in run(*request.arrays[turn * each :][:each]))
            return Message({}, [*rows, *outputs])
        if request.header["do"] == "steps":
            return Message({"steps": [["linear", ["linear"], 0.1]]}, outputs)
        return Message({}, outputs)

    return answer
