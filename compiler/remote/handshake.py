"""How both ends of a connection prove that they have the same key, which neither of them sends."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import stat
import time
from pathlib import Path

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.remote.channel import TAG, Channel, Keys, exactly
from lvc.compiler.remote.message import Malformed

VARIABLE = "LVC_DEVICE_KEY"
SECONDS = 10.0
"""As long as a handshake may take."""

MAGIC = b"lvcdev1\n"
_NONCE = 32
_REFUSED = bytes(TAG)
_FEWEST, _MOST = 32, 4096
_HELP = (
    f"write one with  (umask 077; python3 -c 'import secrets; print(secrets.token_hex(32))' > board.key)  "
    f"and name it on both sides with --key-file, or put its text into the environment variable {VARIABLE}"
)


class KeyRefused(CompileError):
    """The server has another key."""


def read_key(file: Path | None) -> bytes:
    """The key of a file, or else of the environment; `UsageError` without any, or for one that is no secret."""
    if file is None:
        text = os.environ.get(VARIABLE, "").strip().encode(errors="surrogateescape")
        if not text:
            raise UsageError("a key is required", why="whoever has it can run code on the board", help=_HELP)
        return _checked(text, f"the environment variable {VARIABLE}")
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read(_MOST + 1).strip()
    except (OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error)
        raise UsageError(f"cannot read the key '{file}'", why=why, help=_HELP) from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"others may read the key '{file}'", help=f"chmod 600 {file}")
    return _checked(text, f"'{file}'")


def _checked(text: bytes, where: str) -> bytes:
    if not _FEWEST <= len(text) <= _MOST:
        raise UsageError(f"{where} holds no key", why=f"it has {len(text)} bytes, and a key at least 32", help=_HELP)
    return text


def greet(connection: socket.socket, key: bytes) -> Channel:
    """Prove to a server that the key is known, and see that it knows it too.

    `Malformed` if it is no device server or has not got the key, `KeyRefused` if it has another one.
    """
    connection.settimeout(SECONDS)
    start = bytes(exactly(connection, len(MAGIC)))
    if start != MAGIC:
        raise Malformed("it greets otherwise than a device server of this version of lvc")
    theirs, ours = bytes(exactly(connection, _NONCE)), secrets.token_bytes(_NONCE)
    nonces = theirs + ours
    connection.sendall(MAGIC + ours + _proof(key, b"client", nonces))
    answer = bytes(exactly(connection, TAG))
    if answer == _REFUSED:
        raise KeyRefused("the board has another key", help="give both sides the same key file")
    if not hmac.compare_digest(answer, _proof(key, b"server", nonces)):
        raise Malformed("it does not know the key, so it is not the board that it is taken for")
    return Channel(connection, Keys(_proof(key, b"to server", nonces), _proof(key, b"to client", nonces)))


def admit(connection: socket.socket, key: bytes) -> Channel:
    """Let a client in that knows the key; `KeyRefused` or `Malformed` for others, `TimeoutError` for slow ones."""
    deadline, ours = time.monotonic() + SECONDS, secrets.token_bytes(_NONCE)
    connection.settimeout(SECONDS)
    connection.sendall(MAGIC + ours)
    greeting = b""
    while len(greeting) < len(MAGIC) + _NONCE + TAG:
        connection.settimeout(max(1e-3, deadline - time.monotonic()))
        greeting += exactly(connection, 1)
        if not MAGIC.startswith(greeting[: len(MAGIC)]):
            raise Malformed("it greets otherwise than a client of this version of lvc")
    nonces = ours + greeting[len(MAGIC) : -TAG]
    if not hmac.compare_digest(greeting[-TAG:], _proof(key, b"client", nonces)):
        connection.sendall(_REFUSED)
        raise KeyRefused("the client has another key")
    connection.sendall(_proof(key, b"server", nonces))
    return Channel(connection, Keys(_proof(key, b"to client", nonces), _proof(key, b"to server", nonces)))


def _proof(key: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.new(key, role + nonces, hashlib.sha256).digest()
