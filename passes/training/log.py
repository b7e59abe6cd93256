"""The log of training as a file: one JSON object a line, and a picture of it beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.files import write_atomically

if TYPE_CHECKING:
    from lvc.passes.training.loop import Entry


def write_log(path: Path | None, entries: Sequence[Entry]) -> None:
    """Write all entries; nothing without a path. The file never has a part of a line."""
    if path is not None:
        write_atomically(path, "".join(json.dumps(asdict(entry)) + "\n" for entry in entries).encode())
