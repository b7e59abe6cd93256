"""Where a board is, and the way there."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from lvc.compiler.errors import UsageError
from lvc.compiler.remote.errors import Retired
from lvc.compiler.remote.handshake import SECONDS
from lvc.compiler.remote.server import PORT

_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^\s:\[\]/@]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


@dataclass(frozen=True)
class Address:
    """A host by name or number, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host``, ``host:port`` or ``[::1]:port``; `UsageError` for anything else."""
        found = _ADDRESS.fullmatch(text)
        port = int(found["port"] or PORT) if found else 0
        if not found or not 0 < port < 1 << 16:
            raise UsageError(f"'{text}' is no address of a board", help=f"write it as host:port, such as pi4:{PORT}")
        return cls(found["six"] or found["host"], port)

    def connect(self) -> socket.socket:
        """A connection; `Retired` where nobody answers."""
        help = f"'lvc-serve --host {self.host} --port {self.port} --key-file KEY' on the board starts a server"
        try:
            connection = socket.create_connection((self.host, self.port), timeout=SECONDS)
        except (OSError, UnicodeError) as error:
            raise Retired(f"there is no board at {self}", why=reason(error), help=help) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def reason(error: Exception) -> str:
    """Why a connection broke, or was none."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return str(getattr(error, "strerror", None) or error).lower() or type(error).__name__
