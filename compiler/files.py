"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from lvc.compiler.errors import UsageError

Content = bytes | memoryview
"""What a file holds. Of an artefact that was read, large ones are views of memory that begins at a page: code can use
them where they lie."""


def check_writable(path: Path) -> None:
    """Raise `UsageError` if a file could not be written there; called before long work whose result goes there."""
    if path.is_dir():
        raise UsageError(f"cannot write '{path}'", why="it is a folder", help="name a file with -o")
    _check_beside(path)


def check_folder_writable(path: Path, own: Collection[str] = ()) -> None:
    """Raise `UsageError` if a folder could not be written there, or if one is there that holds more than our ``own``
    files, which would be lost."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"cannot write the folder '{path}'", why="it is a file", help="name a folder with -o")
    others = sorted(set(_names(path)) - set(own))
    if others:
        raise UsageError(
            f"cannot write the folder '{path}'",
            why=f"it is there, and holds '{others[0]}', which lvc did not write there",
            help="name another folder with -o, or remove that one",
        )
    _check_beside(path.resolve())


def _names(folder: Path) -> Iterator[str]:
    """What a folder holds: files and links at any depth, and folders that are empty."""
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from ((inside / name).as_posix() for name in [*files, *links])
        if not (files or folders) and inside.parts:
            yield inside.as_posix()


def _check_beside(path: Path) -> None:
    """Raise `UsageError` if nothing can be written beside a path."""
    folder = path.parent
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


def write_folder(path: Path, files: Mapping[str, Content], own: Collection[str] = ()) -> None:
    """Write a folder beside its place and rename it there, in place of one that holds our ``own`` files alone; on an
    error the old one is as it was."""
    check_folder_writable(path, own)
    place = path.resolve()
    beside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    made, old = beside / "made", beside / "old"
    try:
        made.mkdir()
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        if place.exists():
            place.rename(old)
        made.rename(place)
    except OSError as error:
        raise UsageError(f"cannot write the folder '{path}'", why=str(error.strerror)) from error
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        shutil.rmtree(beside, ignore_errors=True)
