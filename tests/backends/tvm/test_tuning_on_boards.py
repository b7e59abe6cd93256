"""Kernels are tuned on several boards at once; one that dies, hangs or lies is retired, and nothing is lost."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_servers import FACTS, KEY, Server, board_that, key_file, serving
from sham_board import even, sham_board, uneven
from sketch import Sketch

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu import targets
from lvc.backends.tvm.tuning.afar import Afar
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Place as Where
from lvc.compiler.backend import Target
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import compile
from lvc.compiler.loaded import load
from lvc.compiler.measure.processor import processor
from lvc.compiler.remote import board as boards
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.board import Board
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import Refused, Retired
from lvc.compiler.remote.facts import own_target
from lvc.compiler.remote.message import Message
from lvc.compiler.remote.pool import Emulators, NoBoards, Pool
from lvc.compiler.tuning.database import Database
from lvc.compiler.tuning.judgement import Judge
from lvc.compiler.tuning.kernels import CannotRace, Choice, Race

NET = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 1))
"""
SELF = {"target": own_target(), "processor": processor(), "machine": platform.machine()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    key_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(addresses: Sequence[Address], *options: str) -> int:
    devices = [part for address in addresses for part in ("--device", str(address))]
    model = ["net.py:make", "--shape", "1x16x12x12", "--no-verify", "--threads", "1"]
    return main(["tune", *model, "--db", "t.db", "--key-file", "board.key", *devices, *options])


def one_conv() -> Artefact:
    sketch = Sketch()
    return compile(sketch.model(sketch.conv(sketch.input(1, 16, 6, 6), 32)), "O0", verify=False)


def wrong(output: np.ndarray) -> np.ndarray:
    found = output.copy()
    found.reshape(-1)[3] += 1
    return found


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        yield [one, two]


LIARS = {"wrong outputs": (even, wrong, "answers wrong numbers"), "wrong times": (uneven, np.copy, "that cannot be")}


@pytest.mark.parametrize("lie", LIARS)
def test_of_three_boards_one_dies_and_one_lies(
    lie: str,
    folder: Path,
    servers: list[Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest, victim = servers
    plain = Board.race

    def race(self: Board, *arguments: Any) -> Any:
        if self.address == victim.address:
            victim.process.kill()  # while it has work
        return plain(self, *arguments)

    monkeypatch.setattr(Board, "race", race)
    pace, change, told = LIARS[lie]
    with sham_board(folder / "liar", SELF, pace, change) as (liar, address):
        addresses = [honest.address, victim.address, address]
        assert tune(addresses, "--trials", "14", "--report", "r.json") == 0
    out, err = capsys.readouterr()
    assert liar.asked.count("race") == 1
    assert re.search(rf"retired a board, \w+ left: the board {victim.address} is gone", err)
    assert re.search(rf"retired a board, \w+ left: the board {address} {told}|{address} .*{told}", err)
    assert "the budget of 14 trials is spent" in out
    report, trials = json.loads((folder / "r.json").read_text()), Database("t.db").trials()
    assert report["trials"] == len(trials) == len({(place.kernel, trial.choice) for place, trial in trials}) == 14
    assert not [trial for _, trial in trials if trial.error]
    assert {place.processor for place, _ in trials} == {targets.timed_processor(Target.parse("native"))}
    assert f"{honest.address}: " in err


def test_when_all_boards_are_gone_nothing_is_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the same command goes on."""
    monkeypatch.setattr(boards, "SILENCE", 2.0)
    races = [0]

    def hang(request: Message, channel: Channel) -> Message | None:
        if request.header["do"] == "race":
            races[0] += 1
            if races[0] > 2:
                channel.has_more(30)
                return None
        return board.answer(request, channel)

    with (
        sham_board(folder / "good", SELF) as (board, address),
        board_that(hang, {**FACTS, **SELF}, put=board.put) as dying,
    ):
        assert tune([dying], "--trials", "12") == 1
        err = capsys.readouterr().err
        assert "error: all boards are retired" in err
        assert f"the board {dying} hangs" in err
        assert "the same command goes on" in err
        assert len(Database("t.db").trials()) == 6
        assert tune([address], "--trials", "12") == 0
    assert len(Database("t.db").trials()) == 12


def test_boards_that_are_another_machine_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        sham_board(folder / "one", SELF) as (_, one),
        sham_board(folder / "two", {**SELF, "processor": "Testium 1"}) as (_, two),
    ):
        said: list[str] = []
        with Pool.connect([one, two, Address("127.0.0.1", 9)], KEY, said.append) as pool:
            assert [board.address for board in pool.timers.boards] == [one]
    assert "it is another machine (Testium 1)" in " ".join(said)
    assert "there is no board at 127.0.0.1:9" in " ".join(said)


def test_boards_that_all_emulate_have_no_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sham_board(folder / "one", {**SELF, "emulates": True}) as (_, one):
        assert tune([one], "--trials", "3") == 2
    assert "no board has times to tell" in capsys.readouterr().err


def test_without_any_board(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune([Address("127.0.0.1", 9)], "--trials", "3") == 1
    assert "error: there is no board at 127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("is_wrong", [False, True])
def test_an_emulated_arm_board_checks_what_another_one_times(
    is_wrong: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target.parse("cortex-a72")
    if missing := BACKEND.missing(target):
        pytest.skip(missing.what)
    if BACKEND.place(target) is Where.ELSEWHERE:
        pytest.skip("nothing runs code for ARM here (Debian: apt-get install qemu-user-static)")
    facts = {"target": "cortex-a72", "machine": "aarch64"}
    change = wrong if is_wrong else np.copy
    with serving(folder, "--emulate") as emulator, sham_board(folder / "arm", facts, even, change) as (_, arm):
        code = tune([emulator.address, arm], "--trials", "4")
    out, err = capsys.readouterr()
    assert "1 board, 1 emulator to check" in err
    if is_wrong:
        assert code == 1
        assert "answers wrong numbers" in err
        assert "the same code, emulated by another board" in err
        assert Database("t.db").trials() == []
        return
    assert code == 0
    assert "the same code, emulated by another board" in err
    (record,) = Database("t.db").records().items()
    assert (record[0].processor, record[1].share) == ("cortex-a72", pytest.approx(0.8))
    assert "4 trials" in out


def test_what_is_too_large_to_be_sent_is_left_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Board.race

    def race(self: Board, *arguments: Any) -> Any:
        monkeypatch.setattr("lvc.compiler.remote.channel.MOST_BODY", 1000)
        return plain(self, *arguments)

    monkeypatch.setattr(Board, "race", race)
    with sham_board(folder / "one", SELF) as (_, one):
        assert tune([one], "--trials", "12") == 0
    assert "was left as it is: a message has at most 1.00 kB of arrays" in capsys.readouterr().err


class Refusing(Afar):
    """Boards that refuse some choices."""

    bad: Sequence[Choice] = ()
    most = 9

    def _once(self, incumbent: Choice, challengers: Sequence[Choice], judge: Judge) -> Race:
        if len(challengers) > self.most or {*challengers, incumbent} & set(self.bad):
            raise Refused("the artefact crashed", why="its process ended by signal 11")
        return Race(dict.fromkeys(challengers, np.ones(8)), np.ones(8), {})


@pytest.mark.parametrize(
    ("bad", "most", "failed"), [(["b"], 9, ["b"]), (["a", "b", "c"], 9, None), ([], 2, None), (["rule"], 9, None)]
)
def test_a_choice_that_a_board_refuses_is_retired(bad: list[Choice], most: int, failed: list[Choice] | None) -> None:
    afar = Refusing(None, None)  # type: ignore[arg-type]
    object.__setattr__(afar, "bad", bad)
    object.__setattr__(afar, "most", most)
    if failed is None:
        with pytest.raises(CannotRace, match="the artefact crashed: its process ended"):
            afar.race("rule", ["a", "b", "c"], Judge())
        return
    found = afar.race("rule", ["a", "b", "c"], Judge())
    assert list(found.failures) == failed
    assert set(found.rounds) == {"a", "c"}


def test_a_refusal_ends_no_board(folder: Path) -> None:
    with sham_board(folder / "one", SELF) as (_, one), Pool.connect([one], KEY, print) as pool:

        def refuse(board: Board) -> None:
            raise Refused("no")

        def lie(board: Board) -> None:
            board.retire("lies", "it does")

        with pytest.raises(Refused):
            pool.timers.do(refuse)
        assert pool.timers.do(lambda board: board.target) == SELF["target"]
        with pytest.raises(NoBoards, match="all boards are retired") as caught:
            pool.timers.do(lie)
        assert "lies" in caught.value.why


def test_a_checker_that_is_alone_is_wrong(folder: Path) -> None:
    """What a board computes is held against another one's, and where they differ against this machine's."""
    artefact = one_conv()
    inputs = seeded_inputs(artefact.inputs, 0)
    right = load(artefact, 1).executable(*inputs)

    def lie(request: Message, channel: Channel) -> Message:
        return Message({}, [wrong(array) for array in right])

    with (
        sham_board(folder / "one", SELF) as (_, one),
        board_that(lie, {**FACTS, "emulates": True}) as two,
    ):
        said: list[str] = []
        with Pool.connect([one, two], KEY, said.append) as pool:
            oracle = Emulators(artefact, pool.checkers)
            assert oracle.fault(inputs, right) == ""
            assert "it alone finds" in " ".join(said)
            assert oracle.fault(inputs, [wrong(array) for array in right])


def test_times_of_races_that_cannot_be(folder: Path) -> None:
    artefact = one_conv()
    inputs = seeded_inputs(artefact.inputs, 0)
    for pace, told in ((lambda *_: 0.0, "times that are none"), (lambda *_: 1e9, "times that cannot be")):
        name = f"board{told[-4:].strip()}"
        with sham_board(folder / name, SELF, pace) as (_, one), Board(one, KEY) as board:
            model = board.load(artefact)
            with pytest.raises(Retired, match=told):
                board.race(model, inputs, 0, Judge())
