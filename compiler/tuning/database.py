"""The database of tuning: the trials that were run, the records that hold, and what was spent.

It is a SQLite file, or on a PostgreSQL server. Several processes may write to one at once, and any may be killed at any
moment: a trial is claimed before it runs, so that nobody runs it twice, and what it gave is written in one transaction
with the end of its claim. A claim whose owner is gone is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvc.compiler.tuning.owner import is_alive, this_process
from lvc.compiler.tuning.store import Session, store_of

_LONGEST_CLAIM = 3600.0  # seconds
_HERE = "kernel = ? AND processor = ? AND version = ?"


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


class Database:
    """The database in a file, or at a PostgreSQL URL; for errors see `lvc.compiler.tuning.store.Store`."""

    def __init__(self, location: str | Path, *, create: bool = False) -> None:
        self._store = store_of(str(location))
        if create:
            self._store.create()
        self._store.check()

    @property
    def name(self) -> str:
        """The file, or the URL without a password."""
        return self._store.name

    def records(self) -> dict[Place, Record]:
        """Every record."""
        with self._store.use() as session:
            rows = session.select("SELECT kernel, processor, version, choice, share, title FROM records")
            return {_place(row): _record(row[3:]) for row in rows}

    def record(self, place: Place) -> Record | None:
        """The record of a kernel."""
        with self._store.use() as session:
            rows = session.select(f"SELECT choice, share, title FROM records WHERE {_HERE}", *_key(place))
            return _record(rows[0]) if rows else None

    def trials(self, place: Place | None = None) -> list[tuple[Place, Trial]]:
        """The trials of a kernel, or all."""
        query = "SELECT kernel, processor, version, choice, share, error FROM trials"
        with self._store.use() as session:
            rows = session.select(f"{query} WHERE {_HERE}", *_key(place)) if place else session.select(query)
            return [
                (_place(row), Trial(str(row[3]), None if row[4] is None else float(row[4]), str(row[5])))
                for row in rows
            ]

    def spent(self, run: str) -> tuple[int, float]:
        """The trials and the seconds that a run has spent."""
        with self._store.use() as session:
            return _trials_of(session, run), _seconds_of(session, run)

    def claim(self, run: str, place: Place, choices: Sequence[str], most: int | None) -> list[str]:
        """Claim choices that nobody has tried or is trying, so many that the run has no more than ``most`` trials."""
        with self._store.change() as session:
            _release_the_dead(session)
            known = {
                row[0]
                for table in ("trials", "claims")
                for row in session.select(f"SELECT choice FROM {table} WHERE {_HERE}", *_key(place))
            }
            free = [choice for choice in choices if choice not in known]
            if most is not None:
                running = session.select("SELECT count(*) FROM claims WHERE run = ?", run)[0][0]
                free = free[: max(0, most - _trials_of(session, run) - running)]
            rows = [(*_key(place), choice, run, this_process(), session.now()) for choice in free]
            session.write("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            return free

    def finish(self, run: str, place: Place, trials: Sequence[Trial], record: Record | None, seconds: float) -> None:
        """Keep what claimed trials gave, the record if it is the best one, and how long they took."""
        with self._store.change() as session:
            _add(session, run, [(place, trial) for trial in trials])
            _unclaim(session, place, [trial.choice for trial in trials])
            if record:
                _keep(session, {place: record})
            _spend(session, run, seconds)

    def release(self, place: Place, choices: Sequence[str]) -> None:
        """Give back claims that come to nothing."""
        with self._store.change() as session:
            _unclaim(session, place, choices)

    def spend(self, run: str, seconds: float) -> None:
        """Note time that a run has taken beside its trials."""
        with self._store.change() as session:
            _spend(session, run, seconds)

    def take(self, records: dict[Place, Record], trials: Sequence[tuple[Place, Trial]], run: str) -> tuple[int, int]:
        """Add records and trials from elsewhere; return how many of each were new."""
        with self._store.change() as session:
            return _keep(session, records), _add(session, run, trials)

    def withdraw(self, place: Place, choice: str) -> None:
        """Remove a record that did not hold, if it still is that one; its trial stays, so that it is not run again."""
        with self._store.change() as session:
            session.write(f"DELETE FROM records WHERE {_HERE} AND choice = ?", [(*_key(place), choice)])


def _place(row: Sequence[Any]) -> Place:
    return Place(*map(str, row[:3]))


def _record(row: Sequence[Any]) -> Record:
    return Record(str(row[0]), float(row[1]), str(row[2]))


def _key(place: Place) -> tuple[str, str, str]:
    return place.kernel, place.processor, place.version


def _trials_of(session: Session, run: str) -> int:
    return int(session.select("SELECT count(*) FROM trials WHERE run = ?", run)[0][0])


def _seconds_of(session: Session, run: str) -> float:
    rows = session.select("SELECT seconds FROM runs WHERE run = ?", run)
    return float(rows[0][0]) if rows else 0.0


def _spend(session: Session, run: str, seconds: float) -> None:
    statement = (
        "INSERT INTO runs VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET seconds = runs.seconds + excluded.seconds"
    )
    session.write(statement, [(run, seconds)])


def _unclaim(session: Session, place: Place, choices: Sequence[str]) -> None:
    statement = f"DELETE FROM claims WHERE {_HERE} AND choice = ? AND owner = ?"
    session.write(statement, [(*_key(place), choice, this_process()) for choice in choices])


def _add(session: Session, run: str, trials: Sequence[tuple[Place, Trial]]) -> int:
    """Write trials that are not there yet; return how many those were."""
    rows = [(*_key(place), trial.choice, run, trial.share, trial.error) for place, trial in trials]
    return session.write("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def _keep(session: Session, records: Mapping[Place, Record]) -> int:
    """Write records unless there are better ones; return how many were written."""
    statement = (
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kernel, processor, version) DO UPDATE SET "
        "choice = excluded.choice, share = excluded.share, title = excluded.title WHERE excluded.share < records.share"
    )
    rows = [(*_key(place), record.choice, record.share, record.title) for place, record in records.items()]
    return session.write(statement, rows)


def _release_the_dead(session: Session) -> None:
    """Free what was claimed by processes that are gone, and what has been claimed for longer than a trial can take."""
    session.write("DELETE FROM claims WHERE since < ?", [(session.now() - _LONGEST_CLAIM,)])
    owners = [row[0] for row in session.select("SELECT DISTINCT owner FROM claims")]
    session.write("DELETE FROM claims WHERE owner = ?", [(owner,) for owner in owners if not is_alive(owner)])
