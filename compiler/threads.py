"""How many threads: what may be asked for, and what this process has cores for. Imports nothing heavy."""

from __future__ import annotations

import operator
import os
from typing import SupportsIndex

from lvc.compiler.errors import UsageError


def usable_cores() -> int:
    """The cores that this process may run on: those of its affinity where the system has such a thing, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_threads(asked: SupportsIndex | None) -> int | None:
    """A number of threads as it was asked for, None for the default; `UsageError` for what is no integer from 1."""
    if asked is None:
        return None
    try:
        number = operator.index(asked)
    except TypeError:
        number = 0
    if number < 1 or isinstance(asked, bool):
        raise UsageError(f"threads must be an integer from 1, not {asked!r}", help="leave it out to use all cores")
    return number


def usable_threads(asked: SupportsIndex | None) -> int:
    """As many threads as were asked for, at most as many as there are cores to use, which is the default too."""
    cores = usable_cores()
    return min(checked_threads(asked) or cores, cores)
