"""Compiled kernels, and the folder that keeps them by a key of their structure, for all models and processes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 512 << 20
KEPT_SHARE = 0.75  # of the most bytes, after the oldest entries have been removed
_MAGIC = "lvc kernel 3"


@dataclass(frozen=True)
class Object:
    """A compiled kernel: an object file, and the bytes of each buffer that a task takes from its thread's pool.

    ``refused`` is why TVM refused the kernel's own schedule, if it did and the kernel got a plain one.
    """

    code: bytes
    scratch: tuple[int, ...] = ()
    refused: str = ""


class ObjectCache:
    """Compiled kernels by key in a folder; a folder that cannot be used is no cache, and no error.

    ``LVC_CACHE`` names the folder, or turns the cache off when it is empty. Processes may share one: an entry appears
    whole or not at all, and one that is damaged counts as missing. What was not used for longest goes first.
    """

    def __init__(self, folder: Path | None, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    @classmethod
    def of_user(cls) -> ObjectCache:
        """The cache of this user: ``$LVC_CACHE``, else ``$XDG_CACHE_HOME/lvc/objects``."""
        chosen = os.environ.get("LVC_CACHE")
        if chosen is not None:
            return cls(Path(chosen) if chosen else None)
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(base) / "lvc" / "objects")

    def get(self, key: str) -> Object | None:
        try:
            return _unpack(self.read(f"{key}.o"))
        except (ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, made: Object) -> None:
        self.write(f"{key}.o", _pack(made))

    def read(self, name: str) -> bytes:
        """The content of a file of the folder; nothing if there is none."""
        if self.folder is None:
            return b""
        try:
            content = (self.folder / name).read_bytes()
            os.utime(self.folder / name)
        except OSError:
            return b""
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the folder, whole or not at all."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(self.folder / name)
        except OSError:
            return

    def trim(self) -> None:
        """Remove the entries that were not used for longest, if all together are too large."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total <= self.most_bytes:
            return
        for _, size, file in entries:
            file.unlink(missing_ok=True)
            total -= size
            if total <= KEPT_SHARE * self.most_bytes:
                return

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each file; another process may remove some meanwhile."""
        try:
            files = list(self.folder.iterdir()) if self.folder else []
        except OSError:
            return
        for file in files:
            try:
                known = file.stat()
            except OSError:
                continue
            yield known.st_mtime, known.st_size, file


def _pack(made: Object) -> bytes:
    digest = hashlib.sha256(made.code).hexdigest()
    header = {"magic": _MAGIC, "scratch": made.scratch, "refused": made.refused, "sha256": digest}
    return json.dumps(header).encode() + b"\n" + made.code


def _unpack(content: bytes) -> Object:
    """Read what `_pack` made; `ValueError`, `TypeError` or `KeyError` for anything else."""
    first, _, code = content.partition(b"\n")
    header = json.loads(first)
    if header["magic"] != _MAGIC or header["sha256"] != hashlib.sha256(code).hexdigest():
        raise ValueError("a damaged entry")
    return Object(code, tuple(map(int, header["scratch"])), str(header["refused"]))
