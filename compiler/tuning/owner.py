"""Names of processes that no later process has, so that what one has claimed is free when it is gone."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = Path("/etc/machine-id")
_NAMESPACE = Path("/proc/self/ns/pid")
"""What numbers processes: a container has one of its own."""


def this_process() -> str:
    """The name of this process."""
    return json.dumps([*_machine(), _read(_BOOT), os.getpid(), _started(os.getpid())])


def is_alive(owner: str) -> bool:
    """Whether a process still runs, by its name; of one on another machine or in another container nothing is known,
    and it counts as alive."""
    try:
        *machine, boot, process, started = json.loads(owner)
    except (ValueError, TypeError):
        return False
    if machine != _machine():
        return True
    return bool(boot == _read(_BOOT) and started == _started(int(process)))


def _machine() -> list[str]:
    """The machine, however many have its host's name, and the container."""
    with suppress(OSError):
        return [platform.node(), _read(_MACHINE), str(_NAMESPACE.readlink())]
    return [platform.node(), _read(_MACHINE), ""]


def _started(process: int) -> str:
    """When a process was started, in ticks since the machine was; empty if there is none, or it has ended."""
    fields = _read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
