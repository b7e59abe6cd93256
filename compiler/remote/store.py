"""The artefacts that a server keeps: files in a folder of its own, by digest, of a bounded size together."""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
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
        self.folder = folder
        self._most = most
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path | None:
        """Where a file lies; None where it is not, or no more."""
        with self._lock:
            if digest not in self._sizes:
                return None
            self._sizes.move_to_end(digest)
            return self._place(digest)

    def take(self, file: Path, digest: str, size: int) -> None:
        """Keep a file, which is moved."""
        with self._lock:
            self._sizes.pop(digest, None)
            while self._sizes and sum(self._sizes.values()) + size > self._most:
                oldest, _ = self._sizes.popitem(last=False)
                self._place(oldest).unlink(missing_ok=True)
            file.replace(self._place(digest))
            self._sizes[digest] = size

    def upload(self, digest: str, size: int) -> Upload:
        """Begin with a file of so many bytes; `UsageError` for one that is larger than all that may be kept."""
        if not _DIGEST.fullmatch(digest) or size < 0:
            raise Malformed("'digest' is no SHA-256, or 'bytes' no size")
        if size > self._most:
            raise UsageError(
                f"the artefact has {si(size, 'B')}, and the board keeps {si(self._most, 'B')}",
                help="start the server with a larger --cache",
            )
        with writing(self.folder):
            return Upload(self, digest, size)

    def _place(self, digest: str) -> Path:
        return self.folder / f"{digest}.lvc"


class Upload:
    """A file of which parts arrive one after the other, on disk from the first: a board may have little memory."""

    def __init__(self, store: Store, digest: str, size: int) -> None:
        self.digest = digest
        self._store = store
        self._size = size
        self._received = 0
        self._hash = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=store.folder, prefix="part-", delete=False) as file:
            self._file = Path(file.name)

    def add(self, offset: int, part: bytes) -> None:
        """Add the next part; the last one has the file kept. `Malformed` if it is another one than was said."""
        if offset != self._received or offset + len(part) > self._size:
            raise Malformed("a part of a file is not the next one")
        with writing(self._store.folder), self._file.open("ab") as file:
            file.write(part)
        self._hash.update(part)
        self._received += len(part)
        if self._received < self._size:
            return
        if self._hash.hexdigest() != self.digest:
            raise Malformed("the file has another digest than was said")
        with writing(self._store.folder):
            self._store.take(self._file, self.digest, self._size)

    def discard(self) -> None:
        """Remove what arrived, unless it is whole."""
        self._file.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Let what a folder cannot take, such as on a full disk, be an error that says so."""
    try:
        yield
    except OSError as error:
        why = f"{folder}: {error.strerror}"
        raise CompileError("the board cannot keep the artefact", why=why, help="make room there") from error
