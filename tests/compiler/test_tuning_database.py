"""The database of tuning: nothing is lost or done twice, and what is no such database is refused in a sentence."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lvc.compiler.cli import main
from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.tuning import owner
from lvc.compiler.tuning.database import Database, Place, Record, Trial
from lvc.compiler.tuning.store import users_database

PLACE = Place("kernel", "processor", "version")


@pytest.fixture
def database(location: str) -> Database:
    return Database(location, create=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a database."""
    Database(tmp_path / "t.db", create=True)
    return tmp_path / "t.db"


def test_a_claim_is_for_one(database: Database) -> None:
    assert database.claim("run", PLACE, ["a", "b", "c"], 2) == ["a", "b"]
    assert database.claim("other", PLACE, ["a", "b", "c"], None) == ["c"]
    database.finish("run", PLACE, [Trial("a", 0.9)], None, 1.5)
    assert database.spent("run") == (1, 1.5)
    assert database.claim("run", PLACE, ["a", "d"], 2) == []
    assert database.claim("run", PLACE, ["a", "d"], 3) == ["d"]


def test_what_the_dead_have_claimed_is_free(database: Database, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from lvc.compiler.tuning.database import *;"
        "Database(sys.argv[1]).claim('run', Place('kernel', 'processor', 'version'), ['a'], 1)"
    )
    subprocess.run([sys.executable, "-c", code, location], check=True)
    assert database.claim("run", PLACE, ["a", "b"], 1) == ["a"]
    away = json.dumps(["another machine", "", 1, "1"])
    assert owner.is_alive(away)
    assert not owner.is_alive("nonsense")
    monkeypatch.setattr("lvc.compiler.tuning.database.this_process", lambda: away)
    assert database.claim("far", PLACE, ["b"], 1) == ["b"]
    assert database.claim("run", PLACE, ["b"], None) == []
    monkeypatch.setattr("lvc.compiler.tuning.database._LONGEST_CLAIM", -1.0)
    assert database.claim("run", PLACE, ["b"], None) == ["b"]


def test_names_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with the same number in another container, or on a machine whose host has the same name, is another's."""
    ours = owner.this_process()
    assert owner.is_alive(ours)
    host, machine, container, boot, process, started = json.loads(ours)
    assert not owner.is_alive(json.dumps([host, machine, container, boot, process, "1"]))
    assert not owner.is_alive(json.dumps([host, machine, container, "before", process, started]))
    assert owner.is_alive(json.dumps([host, machine, "pid:[1]", boot, process, "1"]))
    assert owner.is_alive(json.dumps([host, "another", container, "before", process, "1"]))


def test_a_claim_is_given_back_by_who_has_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database.claim("run", PLACE, ["a", "b"], None) == ["a", "b"]
    database.release(PLACE, ["a"])
    assert database.claim("run", PLACE, ["a"], None) == ["a"]
    away = json.dumps(["another machine", "", 1, "1"])
    monkeypatch.setattr("lvc.compiler.tuning.database.this_process", lambda: away)
    database.release(PLACE, ["a", "b"])
    assert database.claim("run", PLACE, ["a", "b"], None) == []


def test_the_better_record_stays(database: Database) -> None:
    for choice, share in (("a", 0.9), ("b", 0.8), ("c", 0.85)):
        database.finish("run", PLACE, [Trial(choice, share)], Record(choice, share, "layer"), 0.1)
    assert database.record(PLACE) == Record("b", 0.8, "layer")
    database.withdraw(PLACE, "a")
    assert database.record(PLACE)
    database.withdraw(PLACE, "b")
    assert database.record(PLACE) is None
    assert len(database.trials(PLACE)) == 3


def test_a_change_that_fails_leaves_nothing(database: Database) -> None:
    broken: Any = [Trial("a", 0.9), Trial({"no": "text"}, 0.8)]  # type: ignore[arg-type]
    with pytest.raises(LvcError, match="cannot be used"):
        database.finish("run", PLACE, broken, Record("a", 0.9), 1.0)
    assert database.trials() == []
    assert database.records() == {}


def test_an_export_is_taken_back(
    database: Database, location: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database.finish("run", PLACE, [Trial("a", 0.9), Trial("b", None, "it hung")], Record("a", 0.9, "layer"), 1.0)
    other = Database(tmp_path / "o.db", create=True)
    other.finish("run", PLACE, [Trial("c", 0.95)], Record("c", 0.95, "layer"), 1.0)
    assert main(["tune", "--export", str(tmp_path / "t.json"), "--db", location]) == 0
    assert main(["tune", "--import", str(tmp_path / "t.json"), "--db", other.name]) == 0
    assert "added 1 record and 2 trials" in capsys.readouterr().out
    assert other.record(PLACE) == Record("a", 0.9, "layer")
    assert {trial.choice: trial.error for _, trial in other.trials()} == {"a": "", "b": "it hung", "c": ""}
    assert other.spent("run") == (1, 1.0), "trials of others do not count for a budget here"
    assert main(["tune", "--import", str(tmp_path / "t.json"), "--db", other.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 0


GOOD = {"kernel": "k", "processor": "p", "version": "v", "choice": "c", "share": 0.9, "title": ""}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("[" * 100_000, ""),
        ('{"kind": "other", "format": 1}', "it is no"),
        (json.dumps({"kind": "lvc tuning records", "format": 1, "trials": []}), "it has no 'records'"),
        (json.dumps({"kind": "lvc tuning records", "format": 2}), "it is no"),
        *(
            (json.dumps({"kind": "lvc tuning records", "format": 1, "trials": [], "records": [{**GOOD, **bad}]}), why)
            for bad, why in (
                ({"share": -1.0}, "is no share"),
                ({"share": "1"}, "is no share"),
                ({"share": float("nan")}, "is no share"),
                ({"choice": 3}, "is no text"),
                ({"choice": "x" * 2000}, "is no text"),
            )
        ),
    ],
)
def test_what_is_no_export(content: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.json").write_text(content)
    assert main(["tune", "--import", str(tmp_path / "t.json"), "--db", str(tmp_path / "t.db")]) == 2
    told = capsys.readouterr().err
    assert "is not an export of tuning records" in told
    assert why in told
    assert Database(tmp_path / "t.db").records() == {}


def test_where_the_users_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVC_TUNING", "/somewhere/t.db")
    assert users_database() == "/somewhere/t.db"
    monkeypatch.delenv("LVC_TUNING")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert users_database() == "/data/lvc/tuning.db"


def test_what_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no tuning database"):
        Database(tmp_path / "t.db")
    (tmp_path / "text").write_text("not a database, and long enough that SQLite looks at it\n" * 100)
    for create in (False, True):
        with pytest.raises(UsageError, match="is not a tuning database"):
            Database(tmp_path / "text", create=create)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE trials (a)")
        other.commit()
    with pytest.raises(UsageError, match="is not a tuning database"):
        Database(tmp_path / "other.db", create=True)
    with pytest.raises(UsageError, match=r"cannot be written|cannot make"):
        Database(tmp_path, create=True)
    with pytest.raises(UsageError, match="cannot make the tuning database"):
        Database(tmp_path / "text" / "t.db", create=True)


def test_a_database_of_another_format(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="was made by another version of lvc") as caught:
        Database(path, create=True)
    assert "its format is 99" in caught.value.why


def test_a_broken_database(path: Path) -> None:
    database = Database(path)
    database.finish("run", PLACE, [Trial(str(n), 0.9, "x" * 500) for n in range(200)], Record("a", 0.9), 1.0)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LvcError, match=r"cannot be used|is not a tuning database"):
        database.trials()


def test_a_database_with_other_values(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO records VALUES ('k', 'p', 'v', 'c', 'fast', 't')")
        other.commit()
    with pytest.raises(LvcError, match="cannot be used"):
        Database(path).records()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_database_that_may_not_be_written(path: Path) -> None:
    path.chmod(0o400)
    assert Database(path).records() == {}
    with pytest.raises(UsageError, match="cannot be written"):
        Database(path, create=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no model is given"),
        (["m.onnx"], "give one of --budget and --trials"),
        (["m.onnx", "--budget", "10m", "--trials", "3"], "give one of --budget and --trials"),
        (["m.onnx", "--budget", "soon"], "'soon' is no time to tune for"),
        (["m.onnx", "--trials", "0"], "is not an integer from 1"),
        (["m.onnx", "--trials", "3", "--target", "onnx"], "'onnx' has no kernels to tune"),
        (["m.onnx", "--trials", "3", "--target", "cortex-a76"], "kernels for 'cortex-a76' cannot be timed here"),
        (["m.onnx", "--trials", "3", "--device", "board:1"], "a key is required"),
        (["m.onnx", "--export", "x.json"], "--export and --import each stand alone"),
        (["--export", "x.json", "--db", "none.db"], "there is no tuning database"),
        (["--import", "none.json", "--db", "new.db"], "cannot read 'none.json'"),
    ],
)
def test_wrong_usage(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LVC_TUNING", str(tmp_path / "t.db"))
    assert main(["tune", *arguments]) == 2
    assert told in capsys.readouterr().err
