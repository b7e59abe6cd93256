"""The artefacts that a server keeps: files in a folder of its own, by digest, of a bounded size together."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from pathlib import Path

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.remote.message import Malformed
from lvc.compiler.text import si

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Store:
    """Files by digest. When there are more bytes than ``most``, those go that were used longest ago."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path | None:
        """Where a file lies; None where it is not, or no more."""
        with self._lock:
            if digest not in self._sizes:
                return None
            self._sizes.move_to_end(digest)
            return self._folder / f"{digest}.lvc"

    def keep(self, digest: str, content: bytes) -> None:
        """Keep a file; `Malformed` if it has another digest."""
        if digest_of(content) != digest:
            raise Malformed("the file has another digest than was said")
        with self._lock:
            while self._sizes and sum(self._sizes.values()) + len(content) > self._most:
                oldest, _ = self._sizes.popitem(last=False)
                (self._folder / f"{oldest}.lvc").unlink(missing_ok=True)
            try:
                (self._folder / f"{digest}.lvc").write_bytes(content)
            except OSError as error:
                (self._folder / f"{digest}.lvc").unlink(missing_ok=True)
                why = f"{self._folder}: {error.strerror}"
                raise CompileError("the board cannot keep the artefact", why=why, help="make room there") from error
            self._sizes[digest] = len(content)

    def upload(self, digest: str, size: int) -> Upload:
        """Begin with a file of so many bytes; `UsageError` for one that is larger than all that may be kept."""
        if not _DIGEST.fullmatch(digest) or size < 0:
            raise Malformed("'digest' is no SHA-256, or 'bytes' no size")
        if size > self._most:
            raise UsageError(
                f"the artefact has {si(size, 'B')}, and the board keeps {si(self._most, 'B')}",
                help="start the server with a larger --cache",
            )
        return Upload(self, digest, size)


class Upload:
    """A file of which parts arrive one after the other."""

    def __init__(self, store: Store, digest: str, size: int) -> None:
        self.digest = digest
        self._store = store
        self._size = size
        self._content = bytearray()

    def add(self, offset: int, part: bytes) -> None:
        """Add the next part; the last one has the file kept."""
        if offset != len(self._content) or offset + len(part) > self._size:
            raise Malformed("a part of a file is not the next one")
        self._content += part
        if len(self._content) == self._size:
            self._store.keep(self.digest, bytes(self._content))
