"""Where a database of tuning is kept: what `lvc.compiler.tuning.database` asks of a kind of database.

Statements are written once, in what SQLite and PostgreSQL have in common, with a question mark for each value.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from lvc.compiler.errors import UsageError

FORMAT = 1
VARIABLE = "LVC_TUNING"
"""The environment variable that names the user's database."""
PATIENCE = 60
"""Seconds to wait for another writer."""
TABLES = (
    "CREATE TABLE trials (kernel TEXT, processor TEXT, version TEXT, choice TEXT, run TEXT, share DOUBLE PRECISION, "
    "error TEXT, PRIMARY KEY (kernel, processor, version, choice))",
    "CREATE TABLE records (kernel TEXT, processor TEXT, version TEXT, choice TEXT, share DOUBLE PRECISION, title TEXT, "
    "PRIMARY KEY (kernel, processor, version))",
    "CREATE TABLE claims (kernel TEXT, processor TEXT, version TEXT, choice TEXT, run TEXT, owner TEXT, "
    "since DOUBLE PRECISION, PRIMARY KEY (kernel, processor, version, choice))",
    "CREATE TABLE runs (run TEXT PRIMARY KEY, seconds DOUBLE PRECISION NOT NULL)",
)
_SCHEMES = ("postgresql://", "postgres://")


class Session(Protocol):
    """A connection in use."""

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        ...

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Run a statement with each of these values in turn; return how many rows changed."""
        ...

    def now(self) -> float:
        """Seconds since 1970, by a clock that all who share the database go by."""
        ...


class Store(Protocol):
    """A database; it is opened for each use, so that no lock is held between two and a fork has no connection.

    ``name`` is for people, and has no password. `UsageError` for what is no database of tuning or cannot be used,
    `CompileError` for a broken one.
    """

    @property
    def name(self) -> str: ...

    def create(self) -> None:
        """Make it if there is none, whole or not at all, and make sure that it can be written."""
        ...

    def check(self) -> None:
        """Raise `UsageError` if it is not there, or of another format."""
        ...

    def use(self) -> AbstractContextManager[Session]:
        """Read in it."""
        ...

    def change(self) -> AbstractContextManager[Session]:
        """A transaction that sees what all others have written, and is written whole or not at all."""
        ...


def users_database() -> str:
    """Where the user's own database is: ``$LVC_TUNING``, else ``$XDG_DATA_HOME/lvc/tuning.db``."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(base) / "lvc" / "tuning.db")


def is_url(location: str) -> bool:
    """Whether a location is that of a database on a server, and not a file."""
    return location.startswith(_SCHEMES)


def store_of(location: str) -> Store:
    """The store at the URL of a PostgreSQL database, or in a file; `UsageError` for the URL of something else."""
    if is_url(location):
        from lvc.compiler.tuning.postgres import Postgres

        return Postgres(location)
    from lvc.compiler.tuning.sqlite import SqliteFile

    if "://" in location:
        scheme = location.partition("://")[0]
        help = "name a file, or postgresql://USER@HOST/DATABASE"
        raise UsageError(f"'{scheme:.20}://...' is no tuning database that lvc knows", help=help)
    return SqliteFile(Path(location))


def not_there(name: str) -> UsageError:
    return UsageError(f"there is no tuning database '{name}'", help="'lvc tune' makes one")


def other_format(name: str, found: object) -> UsageError:
    return UsageError(
        f"'{name}' was made by another version of lvc",
        why=f"its format is {found}, and this version has {FORMAT}",
        help="export it with the version that made it, or name another one",
    )
