"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lvc.compiler.errors import UsageError

Content = bytes | memoryview
"""What a file holds. Of an artefact that was read, large ones are views of memory that begins at a page: code can use
them where they lie."""


def check_writable(path: Path) -> None:
    """Raise `UsageError` if a file could not be written there; called before long work whose result goes there."""
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"cannot write '{path}'", why="it is a folder", help="name a file with -o")
    if not folder.is_dir():
        raise UsageError(f"cannot write '{path}'", why=f"there is no folder '{folder}'", help="make the folder first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write '{path}'", why=f"{folder}: {error.strerror}") from error


def write_atomically(path: Path, content: Content) -> None:
    """Write a file beside its place and rename it there once it is on the disk; on an error the old file is as it was.

    So the file is the old one or the new one after a crash too, whatever crashed.
    """
    check_writable(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"cannot write '{path}'", why=str(error.strerror)) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
