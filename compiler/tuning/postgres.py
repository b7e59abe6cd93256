"""A database of tuning on a PostgreSQL server, which a team shares: tables in a schema of their own.

A password never leaves this module: names and errors are without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.tuning.store import FORMAT, PATIENCE, TABLES, not_there, other_format

if TYPE_CHECKING:
    import psycopg

SCHEMA = "lvc_tuning"
INSTALL = "pip install 'lvc[postgres]'"
_COMMENT = "lvc tuning records, format "
_LOCK = 0x6C766374
_CONNECTING = 10
"""Seconds."""
_TEXT = r"(?:[^\s:/?#@\[\]%]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(
    rf"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>{_TEXT})(?P<password>:{_TEXT})?@)?"
    r"(?P<place>(?:[^\s/?#@%]|%[0-9A-Fa-f]{2})*(?:/(?:[^\s?#@%]|%[0-9A-Fa-f]{2})*)?)"
    r"(?:\?(?P<query>(?:[^\s#%]|%[0-9A-Fa-f]{2})*))?"
)
_IN_TEXT = re.compile(
    r"(?<=://)([^\s:/?#]*:)\S*(?=@)|(?<=[?&])([^\s=&]*(?:pass|secret|scram|key)[^\s=&]*=)[^\s&'\"]*", re.I
)
_SECRET = re.compile("pass|secret|scram|key")


class Postgres:
    """See `lvc.compiler.tuning.store.Store`. `UsageError` for what is no URL, or without psycopg."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise UsageError("a PostgreSQL database needs psycopg, which is not installed", help=INSTALL) from error
        self._psycopg = psycopg
        self._url = url
        self.name = shown(url)

    def create(self) -> None:
        """The schema may have been made by others; then no right to make one is needed."""
        with self.change() as session:
            if not session.select("SELECT 1 FROM pg_namespace WHERE nspname = ?", SCHEMA):
                for statement in (f"CREATE SCHEMA {SCHEMA}", *TABLES):
                    session.run(statement)
                session.run(f"COMMENT ON SCHEMA {SCHEMA} IS '{_COMMENT}{FORMAT}'")

    def check(self) -> None:
        with self.use() as session:
            found = session.select(
                "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = ?", SCHEMA
            )
        if not found:
            raise not_there(self.name)
        comment = str(found[0][0])
        if not comment.startswith(_COMMENT):
            help = "name another database of the server"
            raise UsageError(f"the schema {SCHEMA} of '{self.name}' is not a tuning database", help=help)
        if comment != f"{_COMMENT}{FORMAT}":
            raise other_format(self.name, comment.removeprefix(_COMMENT))

    @contextmanager
    def use(self) -> Iterator[_Session]:
        try:
            with self._connect() as connection, connection.transaction():
                session = _Session(connection)
                session.run(f"SET LOCAL search_path TO {SCHEMA}")
                session.run(f"SET LOCAL lock_timeout TO '{PATIENCE}s'")
                yield session
        except (self._psycopg.Error, ValueError, TypeError) as error:
            raise self._explained(error) from error

    @contextmanager
    def change(self) -> Iterator[_Session]:
        """One writer at a time; what it reads is read after the lock was had."""
        with self.use() as session:
            session.run(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield session

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        options: dict[str, Any] = {} if "connect_timeout" in self._url else {"connect_timeout": _CONNECTING}
        try:
            connection = self._psycopg.connect(
                self._url, autocommit=True, prepare_threshold=None, fallback_application_name="lvc tune", **options
            )
        except self._psycopg.Error as error:
            help = "is it running, and are host, user and password right? a password may be in ~/.pgpass or PGPASSWORD"
            raise UsageError(
                f"the tuning database '{self.name}' cannot be reached", why=_first(error), help=help
            ) from error
        connection.isolation_level = self._psycopg.IsolationLevel.READ_COMMITTED
        return connection

    def _explained(self, error: Exception) -> LvcError:
        errors = self._psycopg.errors
        if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            help = f"GRANT what is missing: USAGE on the schema {SCHEMA}, and its tables"
            what = f"the tuning database '{self.name}' does not let this user do so"
            return UsageError(what, why=_first(error), help=help)
        help = "run the same command again: what was found is kept"
        return CompileError(f"the tuning database '{self.name}' cannot be used", why=_first(error), help=help)


class _Session:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def run(self, statement: str) -> None:
        self._connection.execute(_spelled(statement))

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(_spelled(query), values).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        if not rows:
            return 0
        with self._connection.cursor() as cursor:
            cursor.executemany(_spelled(statement), rows)
            return cursor.rowcount

    def now(self) -> float:
        return float(self.select("SELECT extract(epoch FROM clock_timestamp())")[0][0])


def shown(url: str) -> str:
    """A URL without what is secret; `UsageError`, which does not tell it, for what is none."""
    found = _URL.fullmatch(url)
    if not found:
        why = "a character such as @, : or / in a name or password is written %40, %3A or %2F"
        raise UsageError("the tuning database's URL is none", why=why, help="postgresql://USER@HOST:PORT/DATABASE")
    user = f"{found['user']}@" if found["user"] else ""
    kept = [part for part in (found["query"] or "").split("&") if part and not _is_secret(part)]
    return f"{found['scheme']}{user}{found['place']}" + (f"?{'&'.join(kept)}" if kept else "")


def without_passwords(text: str) -> str:
    """A text of the same length, such as a command, in which URLs of databases have stars for a password."""

    def hidden(found: re.Match[str]) -> str:
        kept = found[1] or found[2]
        return kept + "*" * (len(found[0]) - len(kept))

    return _IN_TEXT.sub(hidden, text)


def _is_secret(part: str) -> bool:
    return bool(_SECRET.search(unquote(part.partition("=")[0]).lower()))


def _spelled(statement: str) -> str:
    """A statement as psycopg takes it; none has a question mark that stands for itself."""
    return statement.replace("?", "%s")


def _first(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().removeprefix("connection failed: ") if lines else type(error).__name__
