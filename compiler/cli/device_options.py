"""The options that name boards, and how work goes from one that fails to the next."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.measure.device import Device


def add_device_options(parser: argparse._ActionsContainer) -> None:
    """Add which boards to work on; see `on_device`."""
    parser.add_argument(
        "--device",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="a board with 'lvc serve-device', to run and to time on; given again, another one if that fails",
    )
    add_key_option(parser)


def add_key_option(parser: argparse._ActionsContainer) -> None:
    """Add where the key is; never the key itself, which all programs could see."""
    help = "the board's key, in a file that nobody else may read (default: the environment variable LVC_DEVICE_KEY)"
    parser.add_argument("--key-file", metavar="FILE", type=Path, help=help)


def on_device(
    options: argparse.Namespace, console: Console, work: Callable[[Device], int], artefacts: Sequence[str | Path] = ()
) -> int:
    """Do work on the boards that the options name, or else on this machine; return its exit code.

    Boards take compiled ``artefacts``: `UsageError` for another file.

    A board that fails is retired: all of the work begins again on the next one, so that nothing that it answered or
    measured counts. The error is that of the last board.
    """
    from lvc.compiler.measure.device import ThisMachine

    emulate = getattr(options, "emulate", False)
    if not options.device:
        return work(ThisMachine(emulate=emulate))
    if emulate:
        raise UsageError("--device and --emulate are both given", help="a board needs no emulation; leave one out")
    if any(text.startswith("cuda") for text in options.device):
        help = "give the pass that trains the option: -p 'finetune{device=cuda}'"
        raise UsageError("--device names a board, and the GPU of this machine is none", help=help)
    from lvc.compiler.container import is_artefact
    from lvc.compiler.remote.address import Address
    from lvc.compiler.remote.board import Board
    from lvc.compiler.remote.errors import Retired
    from lvc.compiler.remote.handshake import read_key

    addresses, key = [Address.parse(text) for text in options.device], read_key(options.key_file)
    if others := [path for path in artefacts if not is_artefact(Path(path))]:
        raise UsageError(f"'{others[0]}' is not an artefact", help="boards run files that 'lvc compile' made")
    for address in addresses:
        try:
            with Board(address, key, console.say) as board:
                code = work(board)
        except Retired as error:
            if address is addresses[-1]:
                raise
            console.say(f"note: retired a board, and began again on the next one: {error}")
        else:
            for line in filter(None, board.remark().splitlines()):
                console.say(f"note: {line}")
            return code
    raise AssertionError
