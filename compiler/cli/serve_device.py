"""Let workstations run and time models on this machine: 'lvc bench MODEL --device HOST:PORT' there. Needs NumPy alone.

Whoever has the key can run programs here as this user. By default only this machine itself is listened to.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from lvc.compiler.cli.device_options import add_key_option
from lvc.compiler.cli.subject import positive
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console

SUMMARY = "let workstations run and time models on this machine"
_MOST_PORT = (1 << 16) - 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="listen at it (default 127.0.0.1)")
    parser.add_argument("--port", metavar="N", type=_port, default=7582, help="default 7582; 0 is any that is free")
    add_key_option(parser)
    parser.add_argument(
        "--limit",
        metavar="S",
        type=positive,
        default=120,
        help="seconds that a run of a model may take (default 120)",
    )
    parser.add_argument(
        "--cache", metavar="MB", type=positive, default=1000, help="megabytes of artefacts to keep (default 1000)"
    )
    parser.add_argument(
        "--emulate",
        action="store_true",
        help="run what this machine cannot run by emulation of its processor; such code has no times",
    )


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.remote.handshake import read_key
    from lvc.compiler.remote.server import DeviceServer

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as by a key: what it made is removed
    try:
        server = DeviceServer(
            options.host,
            options.port,
            read_key(options.key_file),
            limit=options.limit,
            most_bytes=options.cache * 1_000_000,
            emulate=options.emulate,
            say=console.say,
        )
        host, port = server.address
        facts = server.shared.facts
        console.json({"host": host, "port": port, **facts})
        console.say(
            f"{facts['processor']} ({facts['target'] or 'no target that lvc knows'}) serves at {host}, port {port}"
        )
        server.serve()
    except KeyboardInterrupt:
        console.say("stopped")
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_PORT:
        raise UsageError(f"'{text}' is no port", help=f"an integer from 0 to {_MOST_PORT}")
    return int(text)
