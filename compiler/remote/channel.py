"""Messages over a socket: bounded in size and in time, and each authenticated where there are keys."""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from lvc.compiler.errors import UsageError
from lvc.compiler.remote.message import MOST_BODY, MOST_HEADER, Malformed, Message, decode, encode
from lvc.compiler.text import si

TAG = hashlib.sha256().digest_size
_SIZES = struct.Struct("<IQ")
_NUMBER = struct.Struct("<Q")
_SLICE = 1 << 18
"""Bytes that are sent at once, each time with the whole time limit: a slow network is no hanging peer."""


@dataclass(frozen=True)
class Keys:
    """What authenticates the frames of either direction."""

    sending: bytes
    receiving: bytes


class Channel:
    """Messages to and from a peer.

    `UsageError` if a message is too large to be sent; then the channel is as before.

    `TimeoutError` if the peer neither sends nor takes anything for too long, `EOFError` if it has closed, `OSError` if
    the connection broke, `Malformed` for what is no message; after any of them the channel is of no more use.
    """

    def __init__(self, connection: socket.socket, keys: Keys | None = None) -> None:
        self._connection = connection
        self._keys = keys
        self._sent = self._received = 0

    def send(self, message: Message, silence: float | None = None) -> None:
        """Send a message to a peer that has to take some of it within every ``silence`` seconds."""
        header, arrays = encode(message)
        size = sum(map(len, arrays))
        if len(header) > MOST_HEADER or size > MOST_BODY:
            what = f"a message has at most {si(MOST_BODY, 'B')} of arrays, not {si(size, 'B')}"
            raise UsageError(what, why=f"its header has {si(len(header), 'B')}", help="take a smaller batch")
        parts = [memoryview(_SIZES.pack(len(header), size) + header), *arrays]
        if self._keys:
            parts.append(memoryview(_tag(self._keys.sending, self._sent, parts)))
        self._sent += 1
        self._connection.settimeout(silence)
        for part in parts:
            for start in range(0, len(part), _SLICE):
                self._connection.sendall(part[start : start + _SLICE])

    def receive(self, silence: float | None = None) -> Message:
        """Wait for a message from a peer that has to send some of it within every ``silence`` seconds."""
        self._connection.settimeout(silence)
        prefix = exactly(self._connection, _SIZES.size)
        header_size, size = _SIZES.unpack(prefix)
        if header_size > MOST_HEADER or size > MOST_BODY:
            raise Malformed(f"it says that it has {header_size} and {size} bytes")
        header, body = exactly(self._connection, header_size), exactly(self._connection, size)
        if self._keys:
            wanted = _tag(self._keys.receiving, self._received, [prefix, header, body])
            if not hmac.compare_digest(wanted, exactly(self._connection, TAG)):
                raise Malformed("it was changed on its way, or is of another connection")
        self._received += 1
        return decode(bytes(header), body)

    def has_more(self, seconds: float) -> bool:
        """Wait at most so long for a message, or for the end of them."""
        return bool(select.select([self._connection], [], [], seconds)[0])

    def close(self) -> None:
        self._connection.close()


def exactly(connection: socket.socket, size: int) -> memoryview:
    """Receive so many bytes; `EOFError` where there are fewer."""
    found, view = 0, memoryview(bytearray(size))
    while found < size:
        count = connection.recv_into(view[found:])
        if not count:
            raise EOFError("the connection was closed")
        found += count
    return view


def _tag(key: bytes, number: int, parts: Iterable[memoryview]) -> bytes:
    found = hmac.new(key, _NUMBER.pack(number), hashlib.sha256)
    for part in parts:
        found.update(part)
    return found.digest()
