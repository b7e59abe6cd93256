"""Asking for another form than an artefact: what is refused and why, which folders are replaced, names in C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvc.compiler import container
from lvc.compiler.cli import main
from lvc.compiler.emission import FORMS, Emission, c_name, check_emission_writable, emit
from lvc.compiler.errors import UsageError
from lvc.compiler.files import write_folder

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU())
"""


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that compiles a small network, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    return ["compile", "net.py:make", "--shape", "1x8", "--no-verify"]


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(command) == 2
    return capsys.readouterr().err


def test_the_command_says_what_it_wrote(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*compiled, "--emit", "static"]) == 0
    assert "wrote make (3 files, " in capsys.readouterr().out
    assert sorted(file.name for file in Path("make").iterdir()) == ["libmake.a", "make.h", "manifest.json"]
    assert main([*compiled, "--emit", "object", "--emit-weights", "file", "-o", "my net", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == "my net"
    names = ["manifest.json", "my_net.h", "my_net.o", "my_net_weights.bin"]
    assert sorted(file.name for file in Path("my net").iterdir()) == names


def test_a_folder_is_replaced_if_all_of_it_was_written_so(
    compiled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*compiled, "--emit", "source", "-o", "net"]) == 0
    assert main([*compiled, "--emit", "static", "-o", "net"]) == 0
    assert sorted(file.name for file in Path("net").iterdir()) == ["libnet.a", "manifest.json", "net.h"]
    Path("net/notes.txt").write_text("mine")
    Path("link").symlink_to("net")
    for place in ("net", "link"):
        text = refused(capsys, *compiled, "--emit", "static", "-o", place)
        assert f"cannot write the folder '{place}'" in text
        assert "holds 'notes.txt', which lvc did not write there" in text
    assert Path("net/notes.txt").read_text() == "mine"
    Path("net/notes.txt").unlink()
    Path("net/empty").mkdir()
    assert "holds 'empty'" in refused(capsys, *compiled, "--emit", "static", "-o", "net")
    Path("net/empty").rmdir()
    assert main([*compiled, "--emit", "static", "-o", "link"]) == 0
    assert Path("link").is_symlink()
    assert Path("net/liblink.a").is_file() or Path("net/libnet.a").is_file()


def test_nothing_else_is_overwritten(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    assert "it is a file" in refused(capsys, *compiled, "--emit", "static", "-o", "file")
    Path("other").mkdir()
    Path("other/manifest.json").write_text('{"made_by": "somebody 1.0", "files": {}}')
    assert "'manifest.json'" in refused(capsys, *compiled, "--emit", "static", "-o", "other")
    for text in ("[", "[]", '{"made_by": 1}', '{"made_by": "lvc 0.1.0", "files": 3}', "[" * 10000):
        Path("other/manifest.json").write_text(text)
        assert "'manifest.json'" in refused(capsys, *compiled, "--emit", "static", "-o", "other")
    assert "there is no folder" in refused(capsys, *compiled, "--emit", "static", "-o", "none/net")
    Path("empty").mkdir()
    assert main([*compiled, "--emit", "static", "-o", "empty"]) == 0


def test_a_form_that_is_not_there_is_refused(compiled: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, *compiled, "--emit", "c-pakage")
    assert "--emit cannot be 'c-pakage'" in text
    assert "did you mean 'c-package'?" in text
    for target in ("reference", "onnx"):
        text = refused(capsys, *compiled, "--emit", "static", "-t", target)
        assert f"what is built for '{target}' cannot be emitted as 'static'" in text
    for option, value in (("--emit-weights", "file"), ("--emit-threads", "pthreads")):
        assert f"{option} is for other forms than 'artefact'" in refused(capsys, *compiled, option, value)
    assert not list(Path().glob("make*"))


def test_an_artefact_that_was_read_has_no_parts(compiled: list[str]) -> None:
    assert main([*compiled, "-o", "net.lvc"]) == 0
    with pytest.raises(UsageError, match="'make' cannot be emitted") as caught:
        emit(container.read(Path("net.lvc")), Path("net"), Emission("static", "net"))
    assert "read from a file" in caught.value.why
    assert not Path("net").exists()


@pytest.mark.parametrize(("given", "what"), [(("stati",), "form"), (("static", "n", "mapped"), "weights")])
def test_an_emission_knows_its_choices(given: tuple[str, ...], what: str) -> None:
    with pytest.raises(UsageError, match=f"the {what} of an emission cannot be"):
        Emission(*given) if len(given) > 1 else Emission(*given, "n")


@pytest.mark.parametrize(
    ("text", "name"),
    [("r18", "r18"), ("my-net v2", "my_net_v2"), ("3d", "model_3d"), ("_x", "x"), ("七", "model"), ("a/../b", "a_b")],
)
def test_names_are_those_of_c(text: str, name: str) -> None:
    assert c_name(text) == name


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    write_folder(folder, {"a": b"1", "deep/b": b"2"})
    with pytest.raises(UsageError, match="cannot write the folder"):
        write_folder(folder, {"a": b"3", "a/b": b"4"}, own={"a", "deep/b"})
    assert (folder / "a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    with pytest.raises(UsageError, match="holds 'deep/b'"):
        write_folder(folder, {}, own={"a"})


def test_a_folder_of_lvc_is_known_by_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"made_by": "lvc 0.1.0", "files": {"a": {}}}')
    check_emission_writable(tmp_path)
    (tmp_path / "b").touch()
    with pytest.raises(UsageError, match="cannot write the folder"):
        check_emission_writable(tmp_path)


def test_forms_are_told_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compile", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{form}: " in text for form in FORMS)
