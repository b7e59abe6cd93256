"""The folder of a server, and those that servers left which were killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

_YOUNG = 60.0
"""Seconds for which a folder that nobody has locked may be one that is being made."""


class LockedFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder, locked for as long as its process lives; making one removes those of the same ``prefix`` and
    user whose process is gone."""

    def __init__(self, prefix: str) -> None:
        _remove_abandoned(prefix)
        super().__init__(prefix=prefix, ignore_cleanup_errors=True)
        self._lock = _Lock(self.name)
        self._lock.take()

    def cleanup(self) -> None:
        super().cleanup()
        self._lock.close()


class _Lock:
    """The lock of a folder, which its process loses when it ends, however it ends."""

    def __init__(self, folder: str | Path) -> None:
        self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._is_open = True

    def take(self) -> bool:
        """Take it if nobody has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._is_open:
            os.close(self._file)
        self._is_open = False


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # one that another server removes at the same time, or that cannot be read
            known = folder.lstat()
            if not stat.S_ISDIR(known.st_mode) or known.st_uid != os.getuid() or time.time() - known.st_mtime < _YOUNG:
                continue
            with closing(_Lock(folder)) as lock:
                if lock.take():
                    shutil.rmtree(folder, ignore_errors=True)
