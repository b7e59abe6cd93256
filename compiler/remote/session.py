"""What a device server does for one client, request by request."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lvc.compiler.errors import LvcError
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import told
from lvc.compiler.remote.message import Malformed, Message, typed
from lvc.compiler.remote.store import Store, Upload
from lvc.compiler.remote.supervisor import BEAT, Supervisor

SILENCE = 60.0
"""Seconds within which a client has to take some of an answer."""

_MOST_MODELS = 16


@dataclass(frozen=True)
class Shared:
    """What all clients of a server share: the artefacts, and the turn, since one at a time may use the processor."""

    store: Store
    turn: threading.Lock
    limit: float
    emulate: bool
    facts: Mapping[str, Any]


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Session:
    """One client, from its first request to its last."""

    def __init__(self, shared: Shared, channel: Channel) -> None:
        self._shared = shared
        self._channel = channel
        self._upload: Upload | None = None
        self._supervisor = Supervisor(shared.store.folder, limit=shared.limit, emulate=shared.emulate)

    def serve(self) -> None:
        """Answer until the client has gone; what `Channel` raises ends it too."""
        requests: Mapping[str, Callable[[Message], Message]] = {"describe": self._describe, "put": self._put}
        try:
            while True:
                request = self._channel.receive()
                try:
                    answer = requests.get(request.get("do", str), self._execute)(request)
                    self._channel.send(answer, SILENCE)
                except LvcError as error:
                    self._channel.send(told(error), SILENCE)
        except (EOFError, ClientGone):
            return
        finally:
            self._supervisor.end()
            self._discard()

    def _describe(self, request: Message) -> Message:
        return Message({**self._shared.facts, "load": os.getloadavg()[0]})

    def _put(self, request: Message) -> Message:
        digest, size, offset = request.get("digest", str), request.get("bytes", int), request.get("offset", int)
        if self._shared.store.path(digest):
            return Message({"kept": True})
        if len(request.arrays) != 1 or request.arrays[0].dtype.name != "uint8":
            raise Malformed("a part of a file is no array of bytes")
        if offset == 0 or not self._upload or self._upload.digest != digest:
            self._discard()
            self._upload = self._shared.store.upload(digest, size)
        with self._turn():  # nobody else is timed meanwhile
            self._upload.add(offset, request.arrays[0].tobytes())
        return Message({"kept": self._shared.store.path(digest) is not None})

    def _execute(self, request: Message) -> Message:
        """Have the other process do it, when it is this client's turn."""
        models = request.get("models", list)
        if request.get("do", str) not in ("run", "time", "steps", "race") or not 1 <= len(models) <= _MOST_MODELS:
            raise Malformed("'do' is no request, or 'models' is not one to 16 of them")
        placed = []
        for item in models:
            digest, threads, copy = _named(item)
            if (path := self._shared.store.path(digest)) is None:
                return Message({"missing": digest})
            placed.append({"path": str(path), "threads": threads, "copy": copy})
        with self._turn():
            asked = Message({**request.header, "models": placed}, request.arrays)
            return self._supervisor.ask(asked, lambda: self._beat("running"))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the processor for this client alone, once others are done."""
        while not self._shared.turn.acquire(timeout=BEAT):
            self._beat("waiting")
        try:
            yield
        finally:
            self._shared.turn.release()

    def _discard(self) -> None:
        if self._upload:
            self._upload.discard()
            self._upload = None

    def _beat(self, what: str) -> None:
        if self._channel.has_more(0):  # it waits for an answer, so it can only have gone
            raise ClientGone
        self._channel.send(Message({"beat": what}), SILENCE)


def _named(item: object) -> tuple[str, int | None, int]:
    """The digest of a model in a request, on how many threads it shall run, and which copy of it."""
    known = typed(dict, item, "models")
    threads, copy = known.get("threads"), typed(int, known.get("copy", 0), "copy")
    return typed(str, known.get("digest"), "digest"), None if threads is None else typed(int, threads, "threads"), copy
