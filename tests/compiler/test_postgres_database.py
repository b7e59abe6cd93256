"""What is of a PostgreSQL database alone: its URL, its rights, and errors that never tell a password."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
from postgres_server import SECRET, Cluster

from lvc.compiler.cli import main
from lvc.compiler.errors import CompileError, LvcError, UsageError
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.tuning.database import Database, Place, Record, Trial
from lvc.compiler.tuning.postgres import shown, without_passwords
from lvc.compiler.tuning.store import store_of

PLACE = Place("kernel", "processor", "version")


def put(location: str) -> None:
    Database(location, create=True).finish("run", PLACE, [Trial("a", 0.9)], Record("a", 0.9, "layer"), 1.0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://ann@db.example:5433/team", "postgresql://ann@db.example:5433/team"),
        ("postgres://ann:word@db/team", "postgres://ann@db/team"),
        ("postgresql://ann:p%40ss%3A@[::1]:1/t", "postgresql://ann@[::1]:1/t"),
        ("postgresql://a:b@h1:1,h2:2/t?sslmode=require", "postgresql://a@h1:1,h2:2/t?sslmode=require"),
        ("postgresql:///t?host=/run/x&password=word&p%61ssword=word", "postgresql:///t?host=/run/x"),
    ],
)
def test_names_tell_no_password(url: str, name: str) -> None:
    assert shown(url) == name


@pytest.mark.parametrize(
    "url",
    ["postgresql://a:wo@rd@h/t", "postgresql://a:wo/rd@h/t", "postgresql://a:wo#rd@h", "postgresql://a:word%zz@h/t"],
)
def test_what_is_no_url_is_not_told(url: str) -> None:
    with pytest.raises(UsageError, match="URL is none") as caught:
        store_of(url)
    assert "wo" not in str(caught.value).replace("word is written", "").replace("password", "")


def test_other_servers_are_unknown() -> None:
    with pytest.raises(UsageError, match=r"'mysql://...' is no tuning database that lvc knows") as caught:
        store_of("mysql://ann:word@h/t")
    assert "word" not in str(caught.value)


def test_without_psycopg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "psycopg":
            raise ModuleNotFoundError(name)
        return plain(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["tune", "--export", "x.json", "--db", "postgresql://h/t"]) == 2
    told = capsys.readouterr().err
    assert "needs psycopg" in told
    assert "pip install 'lvc[postgres]'" in told


def test_a_server_that_is_not_there(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://ann:{SECRET}@/t?host={tmp_path}"
    assert main(["tune", "--import", "x.json", "--db", url]) == 2
    told = capsys.readouterr().err
    assert f"the tuning database 'postgresql://ann@/t?host={tmp_path}' cannot be reached" in told
    assert "No such file or directory" in told
    assert SECRET not in told


def test_passwords(postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    database = postgres.new().partition("?")[0].rpartition("/")[2]
    postgres.run(f"ALTER DATABASE {database} OWNER TO member")
    put(postgres.url(database, "member", SECRET))
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        Database(postgres.url(database, "member", "wr0ng"))
    assert 'password authentication failed for user "member"' in caught.value.why
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be reached"):
        Database(postgres.url(database, "member"))
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert Database(postgres.url(database, "member")).records() == {PLACE: Record("a", 0.9, "layer")}


def test_who_may_only_read_is_told(postgres: Cluster) -> None:
    location = postgres.new()
    database = location.partition("?")[0].rpartition("/")[2]
    put(location)
    postgres.run(
        "GRANT USAGE ON SCHEMA lvc_tuning TO member; GRANT SELECT ON ALL TABLES IN SCHEMA lvc_tuning TO member",
        database,
    )
    reader = Database(postgres.url(database, "member", SECRET))
    assert reader.record(PLACE)
    with pytest.raises(UsageError, match="does not let this user do so") as caught:
        reader.withdraw(PLACE, "a")
    assert "permission denied for table records" in caught.value.why


def test_what_is_no_database_of_tuning(postgres: Cluster) -> None:
    location = postgres.new()
    database = location.partition("?")[0].rpartition("/")[2]
    with pytest.raises(UsageError, match="there is no tuning database"):
        Database(location)
    put(location)
    postgres.run("COMMENT ON SCHEMA lvc_tuning IS 'lvc tuning records, format 99'", database)
    with pytest.raises(UsageError, match="was made by another version of lvc"):
        Database(location, create=True)
    postgres.run("COMMENT ON SCHEMA lvc_tuning IS 'other'", database)
    with pytest.raises(UsageError, match="is not a tuning database"):
        Database(location)


def test_a_server_that_ends_the_connection(postgres: Cluster) -> None:
    location = postgres.new()
    put(location)
    ends = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(CompileError, match="cannot be used") as caught, store_of(location).change() as session:
        session.select(ends)
    assert caught.value.why.startswith("terminating connection")
    assert Database(location).record(PLACE)


def test_others_tables_are_left_alone(postgres: Cluster) -> None:
    location = postgres.new()
    database = location.partition("?")[0].rpartition("/")[2]
    postgres.run("CREATE TABLE trials (a int)", database)
    put(location)
    assert len(Database(location).trials()) == 1
    postgres.run("INSERT INTO public.trials VALUES (1)", database)


def test_text_that_postgres_does_not_take(postgres: Cluster) -> None:
    with pytest.raises(LvcError, match="cannot be used"):
        Database(postgres.new(), create=True).finish("run", PLACE, [Trial("a\0", 0.9)], None, 0.0)


def test_records_of_a_server_are_used(postgres: Cluster) -> None:
    location = postgres.new()
    put(location)
    (item,) = Pipeline.parse(f'use-records{{database="{location}"}}')
    assert item.records == location
    assert str(Pipeline((item,))).count(location) == 1


def test_a_pipeline_has_no_password() -> None:
    with pytest.raises(UsageError, match="no place for a password") as caught:
        Pipeline.parse(f'use-records{{database="postgresql://ann:{SECRET}@h/t"}}')
    assert SECRET not in str(caught.value)
    assert "postgresql://ann:***********@h/t" in caught.value.why


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lvc tune m.onnx --db postgresql://ann:wo@rd@h/t", "lvc tune m.onnx --db postgresql://ann:*****@h/t"),
        ("--db=postgres://h/t?host=x&PassWord=word&a=b", "--db=postgres://h/t?host=x&PassWord=****&a=b"),
        ("--device pi:80 --db postgresql://ann@h/t", "--device pi:80 --db postgresql://ann@h/t"),
    ],
)
def test_commands_that_are_told_have_no_password(text: str, told: str) -> None:
    assert without_passwords(text) == told
