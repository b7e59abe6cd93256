"""Imports of large libraries, which Python's collector of garbage makes a third longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Import without a look for garbage: hundreds of thousands of objects come that all stay, and each look goes
    through those that are there."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
