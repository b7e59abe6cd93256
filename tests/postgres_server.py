"""A PostgreSQL server for tests: a private cluster in a temporary folder, reached through a socket in it."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECRET = "s3cret-w0rd"
_numbers = itertools.count()
_RULES = "local all member scram-sha-256\nlocal all all trust\n"


@dataclass(frozen=True)
class Cluster:
    """A server that runs. Its superuser is ``owner``, who needs no password; ``member`` needs `SECRET`."""

    folder: Path

    def url(self, database: str, user: str = "owner", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={self.folder}"

    def new(self) -> str:
        """The URL of a database that is new."""
        name = f"t{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def run(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server, and stop it at the end; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'lvc[postgres]'")
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="lvc-pg-", dir="/tmp"))  # the path of a socket may have 107 characters
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server does not run as root
        user = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []}
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60, **user)

    try:
        call("initdb", "--username=owner", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8")
        (data / "pg_hba.conf").write_text(_RULES)
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c shared_buffers=8MB"
        call("pg_ctl", "start", "--silent", "--wait", "--log", str(folder / "log"), "-o", options)
        try:
            found = Cluster(folder)
            found.run(f"CREATE ROLE member LOGIN PASSWORD '{SECRET}'")
            yield found
        finally:
            call("pg_ctl", "stop", "--silent", "--mode=immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Where Debian puts the server's programs, which are not on the path."""
    known = [Path(found).parent] if (found := shutil.which("initdb")) else []
    known += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    place = next((folder for folder in known if (folder / "pg_ctl").is_file()), None)
    if place is None:
        pytest.skip("there is no PostgreSQL server: Debian's package is 'postgresql'")
    return place
