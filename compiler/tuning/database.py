"""The database of tuning: one SQLite file with the trials that were run, the records that hold, and what was spent.

Several processes may write to one file at once, and any may be killed at any moment: a trial is claimed before it runs,
so that nobody runs it twice, and what it gave is written in one transaction with the end of its claim. A claim whose
owner is gone is nobody's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.tuning.owner import is_alive, this_process

FORMAT = 1
APPLICATION = 0x6C766374  # "lvct", which tells the file from other databases
VARIABLE = "LVC_TUNING"
"""The environment variable that names the user's database."""
_WAIT = 60.0  # seconds for another writer
_LONGEST_CLAIM = 3600.0  # seconds
_SCHEMA = """
CREATE TABLE trials (kernel TEXT, processor TEXT, version TEXT, choice TEXT, run TEXT, share REAL, error TEXT,
    PRIMARY KEY (kernel, processor, version, choice)) WITHOUT ROWID;
CREATE TABLE records (kernel TEXT, processor TEXT, version TEXT, choice TEXT, share REAL, title TEXT,
    PRIMARY KEY (kernel, processor, version)) WITHOUT ROWID;
CREATE TABLE claims (kernel TEXT, processor TEXT, version TEXT, choice TEXT, run TEXT, owner TEXT, since REAL,
    PRIMARY KEY (kernel, processor, version, choice)) WITHOUT ROWID;
CREATE TABLE runs (run TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Place:
    """What a kernel's trials and records are known by."""

    kernel: str
    processor: str
    version: str


@dataclass(frozen=True)
class Trial:
    """A choice that was tried: its time as a share of the rule's, or why there is none."""

    choice: str
    share: float | None
    error: str = ""


@dataclass(frozen=True)
class Record:
    """The choice that surely is faster than the rule's, and its time as a share of that."""

    choice: str
    share: float
    title: str = ""


def users_database() -> Path:
    """Where the user's own database is: ``$LVC_TUNING``, else ``$XDG_DATA_HOME/lvc/tuning.db``."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "lvc" / "tuning.db"


class Database:
    """A database file; it is opened for each use, so that no lock is held between two and a fork has no connection.

    ``UsageError`` for a file that is no database of tuning or cannot be used, `CompileError` for a broken one.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if create:
            self._create()
        elif not path.is_file():
            raise UsageError(f"there is no tuning database '{path}'", help="'lvc tune' makes one")
        with self._use() as connection:
            self._check(connection)

    def records(self) -> dict[Place, Record]:
        """Every record."""
        with self._use() as connection:
            rows = connection.execute("SELECT kernel, processor, version, choice, share, title FROM records")
            return {_place(row): _record(row[3:]) for row in rows}

    def record(self, place: Place) -> Record | None:
        """The record of a kernel."""
        with self._use() as connection:
            rows = _where(connection, "SELECT choice, share, title FROM records", place)
            return _record(rows[0]) if rows else None

    def others(self, kernel: str) -> list[Place]:
        """For which processors and versions there are records of a kernel."""
        with self._use() as connection:
            rows = connection.execute("SELECT kernel, processor, version FROM records WHERE kernel = ?", (kernel,))
            return list(map(_place, rows))

    def trials(self, place: Place | None = None) -> list[tuple[Place, Trial]]:
        """The trials of a kernel, or all."""
        query = "SELECT kernel, processor, version, choice, share, error FROM trials"
        with self._use() as connection:
            rows = _where(connection, query, place) if place else connection.execute(query).fetchall()
            return [
                (_place(row), Trial(str(row[3]), None if row[4] is None else float(row[4]), str(row[5])))
                for row in rows
            ]

    def spent(self, run: str) -> tuple[int, float]:
        """The trials and the seconds that a run has spent."""
        with self._use() as connection:
            return _trials_of(connection, run), _seconds_of(connection, run)

    def claim(self, run: str, place: Place, choices: Sequence[str], most: int | None) -> list[str]:
        """Claim choices that nobody has tried or is trying, so many that the run has no more than ``most`` trials."""
        with self._change() as connection:
            _release_the_dead(connection)
            known = {row[0] for row in _where(connection, "SELECT choice FROM trials", place)}
            known |= {row[0] for row in _where(connection, "SELECT choice FROM claims", place)}
            free = [choice for choice in choices if choice not in known]
            if most is not None:
                running = connection.execute("SELECT count(*) FROM claims WHERE run = ?", (run,)).fetchone()[0]
                free = free[: max(0, most - _trials_of(connection, run) - running)]
            rows = [(*_key(place), choice, run, this_process(), time.time()) for choice in free]
            connection.executemany("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            return free

    def finish(self, run: str, place: Place, trials: Sequence[Trial], record: Record | None, seconds: float) -> None:
        """Keep what claimed trials gave, the record if it is the best one, and how long they took."""
        with self._change() as connection:
            rows = [(*_key(place), trial.choice, run, trial.share, trial.error) for trial in trials]
            connection.executemany("INSERT OR IGNORE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            for trial in trials:
                _where(connection, "DELETE FROM claims", place, trial.choice)
            if record:
                _keep(connection, place, record)
            _spend(connection, run, seconds)

    def spend(self, run: str, seconds: float) -> None:
        """Note time that a run has taken beside its trials."""
        with self._change() as connection:
            _spend(connection, run, seconds)

    def take(self, records: dict[Place, Record], trials: Sequence[tuple[Place, Trial]], run: str) -> tuple[int, int]:
        """Add records and trials from elsewhere; return how many of each were new."""
        with self._change() as connection:
            before = connection.total_changes
            for place, record in records.items():
                _keep(connection, place, record)
            taken = connection.total_changes - before
            rows = [(*_key(place), trial.choice, run, trial.share, trial.error) for place, trial in trials]
            connection.executemany("INSERT OR IGNORE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            return taken, connection.total_changes - before - taken

    def withdraw(self, place: Place, choice: str) -> None:
        """Remove a record that did not hold, if it still is that one; its trial stays, so that it is not run again."""
        with self._change() as connection:
            _where(connection, "DELETE FROM records", place, choice)

    def _create(self) -> None:
        """Make the file if there is none, whole or not at all, and make sure that it can be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._change() as connection:
                if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
        except OSError as error:
            raise UsageError(f"cannot make the tuning database '{self.path}'", why=str(error.strerror)) from error

    def _check(self, connection: sqlite3.Connection) -> None:
        application, found = (
            connection.execute(f"PRAGMA {n}").fetchone()[0] for n in ("application_id", "user_version")
        )
        if application != APPLICATION:
            raise UsageError(f"'{self.path}' is not a tuning database", help="name another file, or none for a new one")
        if found != FORMAT:
            raise UsageError(
                f"'{self.path}' was made by another version of lvc",
                why=f"its format is {found}, and this version has {FORMAT}",
                help="export it with the version that made it, or name another file",
            )

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees what all others have written, and is written whole or not at all."""
        with self._use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)) as connection:
                yield connection
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise _explained(self.path, error) from error


def _explained(path: Path, error: Exception) -> LvcError:
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        help = "name a file that can be written with --db"
        return UsageError(f"the tuning database '{path}' cannot be written", why=text, help=help)
    if "not a database" in text:
        return UsageError(f"'{path}' is not a tuning database", help="name another file, or none for a new one")
    help = "remove it, or restore it from an export"
    return CompileError(f"the tuning database '{path}' cannot be used", why=text, help=help)


def _place(row: Sequence[Any]) -> Place:
    return Place(*map(str, row[:3]))


def _record(row: Sequence[Any]) -> Record:
    return Record(str(row[0]), float(row[1]), str(row[2]))


def _key(place: Place) -> tuple[str, str, str]:
    return place.kernel, place.processor, place.version


def _where(
    connection: sqlite3.Connection, query: str, place: Place, choice: str | None = None
) -> list[tuple[Any, ...]]:
    condition, values = " WHERE kernel = ? AND processor = ? AND version = ?", _key(place)
    if choice is None:
        return connection.execute(query + condition, values).fetchall()
    return connection.execute(f"{query}{condition} AND choice = ?", (*values, choice)).fetchall()


def _trials_of(connection: sqlite3.Connection, run: str) -> int:
    return int(connection.execute("SELECT count(*) FROM trials WHERE run = ?", (run,)).fetchone()[0])


def _seconds_of(connection: sqlite3.Connection, run: str) -> float:
    row = connection.execute("SELECT seconds FROM runs WHERE run = ?", (run,)).fetchone()
    return float(row[0]) if row else 0.0


def _spend(connection: sqlite3.Connection, run: str, seconds: float) -> None:
    connection.execute(
        "INSERT INTO runs VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET seconds = seconds + excluded.seconds",
        (run, seconds),
    )


def _keep(connection: sqlite3.Connection, place: Place, record: Record) -> None:
    """Write a record, unless there is a better one."""
    connection.execute(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kernel, processor, version) DO UPDATE SET "
        "choice = excluded.choice, share = excluded.share, title = excluded.title WHERE excluded.share < share",
        (*_key(place), record.choice, record.share, record.title),
    )


def _release_the_dead(connection: sqlite3.Connection) -> None:
    """Free what was claimed by processes that are gone, and what has been claimed for longer than a trial can take."""
    connection.execute("DELETE FROM claims WHERE since < ?", (time.time() - _LONGEST_CLAIM,))
    owners = [row[0] for row in connection.execute("SELECT DISTINCT owner FROM claims")]
    for owner in owners:
        if not is_alive(owner):
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
