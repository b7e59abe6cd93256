"""Databases as JSON: the trials and records of one, to be added to another."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lvc.compiler.errors import UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.tuning.database import Database, Place, Record, Trial

KIND, FORMAT = "lvc tuning records", 1
_MOST_BYTES = 256 << 20
_MOST_TEXT = 1000


def export_to(database: Database, path: Path) -> tuple[int, int]:
    """Write all records and trials of a database; return how many there are of each."""
    records, trials = database.records(), database.trials()
    written = {
        "kind": KIND,
        "format": FORMAT,
        "records": [{**vars(place), **vars(record)} for place, record in sorted(records.items(), key=str)],
        "trials": [{**vars(place), **vars(trial)} for place, trial in trials],
    }
    write_atomically(path, (json.dumps(written, indent=1) + "\n").encode())
    return len(records), len(trials)


def import_from(database: Database, path: Path) -> tuple[int, int]:
    """Add what `export_to` wrote; of two records for one kernel the better one stays. Return how many records and
    trials were new; `UsageError` for another file."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"'{path}' is too large for an export", help=f"at most {_MOST_BYTES >> 20} MiB are read")
        data = json.loads(path.read_bytes())
        if data["kind"] != KIND or data["format"] != FORMAT:
            raise ValueError(f"it is no '{KIND}' of format {FORMAT}")
        records = {_place(item): _record(item) for item in data["records"]}
        trials = [(_place(item), _trial(item)) for item in data["trials"]]
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=str(error.strerror)) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        help = "'lvc tune --export FILE' writes one"
        raise UsageError(f"'{path}' is not an export of tuning records", why=why, help=help) from error
    return database.take(records, trials, f"import of {path.name}")


def _place(item: dict[str, Any]) -> Place:
    return Place(*(_text(item[name]) for name in ("kernel", "processor", "version")))


def _record(item: dict[str, Any]) -> Record:
    return Record(_text(item["choice"]), _share(item["share"]), _text(item["title"]))


def _trial(item: dict[str, Any]) -> Trial:
    share = item["share"]
    return Trial(_text(item["choice"]), None if share is None else _share(share), _text(item["error"]))


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise TypeError(f"{value!r:.40} is no text of at most {_MOST_TEXT} characters")
    return value


def _share(value: object) -> float:
    if type(value) is not float or not (math.isfinite(value) and value > 0):
        raise TypeError(f"{value!r:.40} is no share of a time")
    return value
