"""The server that a board runs: it keeps artefacts, runs them and times them for whoever has the key.

What is received is bounded, checked, and never unpickled; a client that sends anything else is told so or left, and
the others are served on. An artefact is native code: having the key is being allowed to run programs as this user.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.facts import facts
from lvc.compiler.remote.folder import LockedFolder
from lvc.compiler.remote.handshake import admit
from lvc.compiler.remote.session import ClientGone, Session, Shared
from lvc.compiler.remote.store import Store

PORT = 7582
MOST_CLIENTS = 16
_BACKLOG = 16


class DeviceServer:
    """Listens at an address; ``serve`` answers clients until an exception, such as that of ctrl-c, ends it."""

    def __init__(
        self,
        host: str,
        port: int,
        key: bytes,
        *,
        limit: float,
        most_bytes: int,
        emulate: bool,
        say: Callable[[str], None],
    ) -> None:
        self._key = key
        self._say = say
        self._listening = listen(host, port)
        self._folder = LockedFolder("lvc-device-")
        store = Store(Path(self._folder.name), most_bytes)
        self.shared = Shared(store, threading.Lock(), limit, emulate, facts(emulate=emulate))
        self._places = threading.Semaphore(MOST_CLIENTS)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listening.getsockname()[:2]
        return host, port

    def serve(self) -> None:
        """Answer clients, each in a thread of its own."""
        with self._folder, closing(self._listening):
            while True:
                try:
                    connection, address = self._listening.accept()
                except OSError as error:  # such as too many open files
                    self._say(f"cannot take a client: {error.strerror}")
                    time.sleep(1)
                    continue
                if not self._places.acquire(blocking=False):
                    connection.close()
                    self._say(f"{_text(address)}: refused: there are {MOST_CLIENTS} clients already")
                    continue
                threading.Thread(target=self._client, args=(connection, _text(address)), daemon=True).start()

    def _client(self, connection: socket.socket, address: str) -> None:
        try:
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._session(admit(connection, self._key), address)
        except TimeoutError:
            self._say(f"{address}: left: it said nothing for too long")
        except (EOFError, ClientGone, OSError) as error:
            self._say(f"{address}: left: {error}")
        except LvcError as error:
            self._say(f"{address}: refused: {error.what}" + (f": {error.why}" if error.why else ""))
        finally:
            self._places.release()

    def _session(self, channel: Channel, address: str) -> None:
        self._say(f"{address}: connected")
        Session(self.shared, channel).serve()
        self._say(f"{address}: gone")


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; `UsageError` where that cannot be."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"there is no address '{host}'", why=str(error), help="name one of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        help = "another server may be there: take another --port, or 0 for any that is free"
        raise UsageError(
            f"cannot listen at {host}, port {port}", why=str(error.strerror or error).lower(), help=help
        ) from error
    return listening


def _text(address: tuple[object, ...]) -> str:
    return f"{address[0]}:{address[1]}"
