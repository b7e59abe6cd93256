"""A database of tuning in a SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.tuning.store import FORMAT, PATIENCE, TABLES, not_there, other_format

APPLICATION = 0x6C766374  # "lvct", which tells the file from other databases


@dataclass(frozen=True)
class SqliteFile:
    """See `lvc.compiler.tuning.store.Store`."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def create(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.change() as session:
                if not session.select("SELECT count(*) FROM sqlite_master")[0][0]:
                    for statement in TABLES:
                        session.select(f"{statement} WITHOUT ROWID")
                    session.select(f"PRAGMA application_id = {APPLICATION}")
                    session.select(f"PRAGMA user_version = {FORMAT}")
        except OSError as error:
            raise UsageError(f"cannot make the tuning database '{self.path}'", why=str(error.strerror)) from error

    def check(self) -> None:
        if not self.path.is_file():
            raise not_there(self.name)
        with self.use() as session:
            application, found = (session.select(f"PRAGMA {n}")[0][0] for n in ("application_id", "user_version"))
        if application != APPLICATION:
            raise _is_none(self.path)
        if found != FORMAT:
            raise other_format(self.name, found)

    @contextmanager
    def use(self) -> Iterator[_Session]:
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as connection:
                yield _Session(connection)
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise _explained(self.path, error) from error

    @contextmanager
    def change(self) -> Iterator[_Session]:
        with self.use() as session:
            session.select("BEGIN IMMEDIATE")
            yield session
            session.select("COMMIT")


@dataclass(frozen=True)
class _Session:
    connection: sqlite3.Connection

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        before = self.connection.total_changes
        self.connection.executemany(statement, rows)
        return self.connection.total_changes - before

    def now(self) -> float:
        return time.time()


def _explained(path: Path, error: Exception) -> LvcError:
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        help = "name a file that can be written with --db"
        return UsageError(f"the tuning database '{path}' cannot be written", why=text, help=help)
    if "not a database" in text:
        return _is_none(path)
    help = "remove it, or restore it from an export"
    return CompileError(f"the tuning database '{path}' cannot be used", why=text, help=help)


def _is_none(path: Path) -> UsageError:
    return UsageError(f"'{path}' is not a tuning database", help="name another file, or none for a new one")
