"""What this machine calls itself."""

from __future__ import annotations

import platform
from pathlib import Path

_BOARD = Path("/proc/device-tree/model")
_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Return the name of this machine's processor; on ARM, where Linux knows none, that of the board."""
    lines = _read(_INFO).splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    board = _read(_BOARD).strip("\0 \n")
    return next(names, "") or board or platform.processor() or platform.machine()


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
