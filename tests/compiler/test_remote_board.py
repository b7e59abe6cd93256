"""A board that lies, hangs or dies is retired with a reason, and the next one begins from the start."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_servers import FACTS, KEY, Answer, board_that, honest, key_file
from small_models import build, shades

from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.errors import UsageError
from lvc.compiler.loaded import load
from lvc.compiler.measure.latency import TargetStopwatch
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.remote import board as boards
from lvc.compiler.remote import remote_model
from lvc.compiler.remote.board import Board
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import Retired
from lvc.compiler.remote.message import Message
from lvc.compiler.remote.oracle import SameCode


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return build(shades())


@pytest.fixture(scope="module")
def truth(artefact: Artefact) -> Answer:
    return honest(load(artefact).executable)


def changed(answer: Answer, change: Callable[[Message], Message]) -> Answer:
    """A board that changes what it answers."""

    def lie(request: Message, channel: Channel) -> Message | None:
        found = answer(request, channel)
        return found and change(found)

    return lie


def with_outputs(*outputs: np.ndarray) -> Callable[[Message], Message]:
    return lambda message: Message(message.header, [*message.arrays[: -len(outputs)], *outputs])


def flipped(message: Message) -> Message:
    """The highest bit of the mantissa of one output is another one."""
    *rest, last = message.arrays
    bits = last.copy().view(np.uint32)
    bits.reshape(-1)[2] ^= 1 << 22
    return Message(message.header, [*rest, bits.view(np.float32)])


SHORT, NAN = np.zeros((1, 5), np.float32), np.full((1, 6), np.nan, np.float32)
LIES: dict[str, tuple[Callable[[Message], Message], str, str]] = {
    "a flipped bit": (flipped, "answers wrong numbers", "output 'output' is"),
    "not a number": (with_outputs(NAN), "answers wrong numbers", "is inf from the same code"),
    "another shape": (with_outputs(SHORT), "answers outputs of another model", r"they are float32[1, 5]"),
    "another type": (with_outputs(NAN.astype(np.float64)), "answers outputs of another model", "float64"),
    "no outputs": (lambda message: Message({}, message.arrays[:-1]), "answers", ""),
    "an odd error": (lambda _: Message({"error": 3}), "answers nonsense", "'error' is no dict"),
    "half of an error": (lambda _: Message({"error": {"error": "x"}}), "answers nonsense", "'where' is no str"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("what", ["run", "time", "steps"])
def test_lies_are_noticed_whatever_is_asked(what: str, lie: str, artefact: Artefact, truth: Answer) -> None:
    change, says, why = LIES[lie]
    inputs = seeded_inputs(artefact.inputs, 0)
    with board_that(changed(truth, change)) as address, Board(address, KEY) as board:
        model = board.load(artefact)
        asks: dict[str, Callable[[], object]] = {
            "run": lambda: model(*inputs),
            "time": lambda: board.time([(model, inputs)], repeats=4),
            "steps": lambda: model.time_steps(inputs),
        }
        with pytest.raises(Retired, match=says) as caught:
            asks[what]()
        assert why in caught.value.why or what == "time"
        with pytest.raises(Retired, match=says):  # it is asked no more
            model(*inputs)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (np.array([1e-4, 0.0, 1e-4, 1e-4]), "answers times that are none"),
        (np.array([1e-4, -1.0, 1e-4, 1e-4]), "answers times that are none"),
        (np.array([1e-4, np.nan, 1e-4, 1e-4]), "answers times that are none"),
        (np.full(3, 1e-4), "answers times that are none"),
        (np.full(4, 1e-4, np.float32), "answers times that are none"),
        (np.full((2, 2), 1e-4), "answers times that are none"),
        (np.full(4, 100.0), "answers times that cannot be"),
    ],
)
def test_times_that_cannot_be_are_noticed(row: np.ndarray, says: str, artefact: Artefact, truth: Answer) -> None:
    def lie(message: Message) -> Message:
        return Message(message.header, [row, *message.arrays[1:]])

    inputs = seeded_inputs(artefact.inputs, 0)
    with board_that(changed(truth, lie)) as address, Board(address, KEY) as board:
        model = board.load(artefact)
        with pytest.raises(Retired, match=says):
            board.time([(model, inputs)], repeats=4)


@pytest.mark.parametrize(
    "steps", [3, [3], [["a", ["b"]]], [["a", "b", 0.1]], [["a", ["b"], 0]], [["a", ["b"], -0.1]], [[1, ["b"], 0.1]]]
)
def test_kernels_that_cannot_be_are_noticed(steps: object, artefact: Artefact, truth: Answer) -> None:
    inputs = seeded_inputs(artefact.inputs, 0)
    lie = changed(truth, lambda message: Message({"steps": steps}, message.arrays))
    with board_that(lie) as address, Board(address, KEY) as board, pytest.raises(Retired, match="answers nonsense"):
        board.load(artefact).time_steps(inputs)


def test_what_runs_here_is_not_timed_there(artefact: Artefact, truth: Answer) -> None:
    inputs = seeded_inputs(artefact.inputs, 0)
    with board_that(truth) as address, Board(address, KEY) as board:
        calls = [(board.load(artefact), inputs), (load(artefact).executable, inputs)]
        with pytest.raises(UsageError, match="times only what it runs"):
            board.time(calls, repeats=4)


def silent(request: Message, channel: Channel) -> Message | None:
    channel.has_more(60)
    return None


def beats_for_ever(request: Message, channel: Channel) -> Message | None:
    while not channel.has_more(0.02):
        channel.send(Message({"beat": "running"}))
    return None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (silent, "hangs"),
        (beats_for_ever, "hangs"),
        (lambda *_: None, "is gone"),
        (lambda *_: Message({"missing": "x"}), "forgets artefacts"),
    ],
)
def test_boards_that_do_not_answer(
    answer: Answer, says: str, artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "SILENCE", 0.3)
    monkeypatch.setattr(boards, "LONGEST", 0.5)
    with board_that(answer) as address, Board(address, KEY) as board, pytest.raises(Retired, match=says):
        board.load(artefact)(*seeded_inputs(artefact.inputs, 0))


@pytest.mark.parametrize("facts", [{}, {**FACTS, "cores": "4"}, {**FACTS, "target": None}, {**FACTS, "load": True}])
def test_boards_that_say_odd_things_of_themselves(facts: dict[str, object], truth: Answer) -> None:
    with board_that(truth, facts or {"a": 1}) as address, pytest.raises(Retired, match="answers nonsense"):
        Board(address, KEY)


def test_what_a_board_says_does_not_steer_the_terminal(artefact: Artefact) -> None:
    error = {"error": "\x1b[31mred", "where": "", "why": "one\ntwo\x07", "help": "", "exit": 2}
    facts = {**FACTS, "processor": "fast\x1b]0;title\x07"}
    with board_that(lambda *_: Message({"error": error}), facts) as address, Board(address, KEY) as board:
        assert board.processor == f"fast?]0;title?, board {address}"
        with pytest.raises(Retired, match="red") as caught:
            board.load(artefact)(*seeded_inputs(artefact.inputs, 0))
        assert (caught.value.what, caught.value.why) == ("?[31mred", "one\ntwo?")


def test_who_does_not_know_the_key_is_no_board(truth: Answer) -> None:
    with board_that(truth) as address, pytest.raises(Retired, match="has another key"):
        Board(address, KEY[::-1])


def test_a_difference_in_the_last_place_is_let_pass(artefact: Artefact) -> None:
    oracle = SameCode(artefact, load(artefact).executable)
    inputs = seeded_inputs(artefact.inputs, 0)
    (right,) = oracle.executable(*inputs)
    assert not oracle.fault(inputs, [np.nextafter(right, np.float32(9))])
    assert 0 < oracle.largest < 1e-6
    assert oracle.fault(inputs, [right + np.float32(1e-3) * np.abs(right).max()])


def test_where_checking_is_slow_a_share_is_checked(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first few and some of the rest; how many is told."""
    monkeypatch.setattr(SameCode, "is_slow", property(lambda _: True))
    draws = iter([0.5, 0.01, 0.9, 0.9, 0.9, 0.9])
    monkeypatch.setattr(remote_model._random, "random", lambda: next(draws))
    inputs = seeded_inputs(artefact.inputs, 0)
    with board_that(honest(load(artefact).executable)) as address, Board(address, KEY) as board:
        model = board.load(artefact)
        for _ in range(10):
            model(*inputs)
        assert board.remark() == "5 of 10 answers of the board were held against the same code, emulated here: equal"


def test_what_cannot_be_checked_is_told(artefact: Artefact, truth: Answer) -> None:
    elsewhere = dataclasses.replace(artefact, backend="elsewhere")
    with board_that(truth) as address, Board(address, KEY) as board:
        board.load(elsewhere)(*seeded_inputs(artefact.inputs, 0))
        assert board.remark().startswith("unchecked: this machine cannot run the code (")


def test_latencies_are_those_of_the_board() -> None:
    """The board says how long, and what it computes is held against PyTorch."""
    model, slow = shades(), shades(7)

    def answer(request: Message, channel: Channel) -> Message:
        outputs = [out for one, given in zip((model, slow), request.arrays, strict=True) for out in one(given)]
        noise = np.random.default_rng(0).uniform(1, 1.001, request.header["repeats"])
        return Message({}, [1e-7 * noise, 4e-7 * noise, *outputs])

    with board_that(answer, {**FACTS, "target": "reference"}) as address, Board(address, KEY) as board:
        watch = TargetStopwatch(None, Workspace(threads=1, device=board))
        race = watch.compare(model, slow)
        assert watch.name == f"reference, board {address}"
        assert (race.share, race.seconds) == (pytest.approx(0.25), pytest.approx(1e-7, rel=1e-2))
        assert board.remark() == "2 of 2 answers of the board were held against the rewritten graph in PyTorch: equal"
    with (
        board_that(changed(answer, flipped), {**FACTS, "target": "reference"}) as address,
        Board(address, KEY) as board,
        pytest.raises(Retired, match="answers wrong numbers") as caught,
    ):
        TargetStopwatch(None, Workspace(threads=1, device=board)).compare(model, slow)
    assert "from the rewritten graph in PyTorch" in caught.value.why


@pytest.fixture
def folder(tmp_path: Path, artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LVC_DEVICE_KEY", raising=False)
    container.write(artefact, tmp_path / "a.lvc")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.uniform(0, 5, (20, 3, 8, 8)).astype(np.float32), y=np.arange(20) % 6)
    key_file(tmp_path)
    return tmp_path


COMMANDS = ["run a.lvc -o out.npz", "eval a.lvc --data data.npz", "bench a.lvc --repeats 3"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_go_on_with_the_next_board_from_the_start(
    command: str, folder: Path, truth: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def late(request: Message, channel: Channel) -> Message | None:
        asked.append(request)
        found = truth(request, channel)
        return found and (flipped(found) if len(asked) == (1 if "run" in command else 2) else found)

    assert main([*command.split(), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    key = ["--key-file", "board.key"]
    with board_that(late) as liar, board_that(truth) as good:
        assert main([*command.split(), "--json", "--device", str(liar), "--device", str(good), *key]) == 0
        found = capsys.readouterr()
        assert main([*command.split(), "--device", str(liar), *key]) == 0  # it lies once
        asked.clear()
        capsys.readouterr()
        assert main([*command.split(), "--device", str(liar), *key]) == 1
        alone = capsys.readouterr()
    assert (
        f"note: retired a board, and began again on the next one: the board {liar} answers wrong numbers" in found.err
    )
    assert "answers of the board were held against the same code, run here" in found.err
    there = json.loads(found.out)
    for name in ("images", "top1_count", "results"):
        assert there.get(name) == here.get(name)
    assert alone.out == ""
    assert alone.err.count("error:") == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run a.lvc --device 127.0.0.1:1", "a key is required"),
        ("run a.lvc --device 127.0.0.1:1 --key-file board.key", "there is no board at 127.0.0.1:1"),
        ("run a.lvc --device here:and:there --key-file board.key", "is no address of a board"),
        ("run a.lvc --device no.such.host.invalid --key-file board.key", "no.such.host.invalid:7582"),
        ("run a.lvc --device 127.0.0.1:1 --emulate", "--device and --emulate are both given"),
        ("run data.npz --device 127.0.0.1:1 --key-file board.key", "'data.npz' is not an artefact"),
        ("bench a.lvc --device 127.0.0.1:1 --against torch", "--device and --against are both given"),
        ("eval torchvision.models:resnet18 --data data.npz --device pi --key-file board.key", "is not an artefact"),
    ],
)
def test_mistakes_end_in_one_error(command: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) in (1, 2)
    err = capsys.readouterr().err
    assert says in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
