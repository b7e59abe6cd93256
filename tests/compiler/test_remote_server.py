"""A device server runs and times what it is sent, and goes on whatever its clients and its artefacts do."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_servers import KEY, Server, serving
from small_models import shades

from lvc.compiler import container, driver
from lvc.compiler.artefact import Artefact
from lvc.compiler.cli import main
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.loaded import load
from lvc.compiler.measure.device import ThisMachine
from lvc.compiler.remote import board as boards
from lvc.compiler.remote.address import Address
from lvc.compiler.remote.board import Board
from lvc.compiler.remote.channel import Channel
from lvc.compiler.remote.errors import Retired
from lvc.compiler.remote.handshake import MAGIC, greet
from lvc.compiler.remote.message import Malformed, Message
from lvc.compiler.remote.oracle import same_code
from lvc.compiler.remote.store import digest_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("board"), "--cache", "1") as found:
        yield found


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return driver.compile(shades(), "O2", "native", verify=False)


@pytest.fixture
def board(server: Server) -> Iterator[Board]:
    with Board(server.address, KEY) as found:
        yield found


def works(server: Server, artefact: Artefact) -> None:
    """Whether the server still does what it is there for."""
    (image,) = seeded_inputs(artefact.inputs, 1)
    with Board(server.address, KEY) as board:
        found = board.load(artefact, 1)(image)
    np.testing.assert_array_equal(found[0], load(artefact, 1)(image))


def test_it_gives_what_the_model_gives_here(board: Board, artefact: Artefact) -> None:
    images = [seeded_inputs(artefact.inputs, seed) for seed in range(3)]
    there, here = board.open(artefact, 1), load(artefact, 1)
    for image in images:
        np.testing.assert_array_equal(there(*image), here(*image))
    assert board.remark() == "3 of 3 answers of the board were held against the same code, run here: equal"


def test_it_serves_any_number_of_images_there(board: Board) -> None:
    several = driver.compile(shades(), "O2", "native", verify=False, batches=(4,))
    there, x = board.open(several), np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(there(x), load(several)(x))
    assert (board.checks.answers, board.checks.checked) == (3, 3)


def test_it_is_timed_there_as_here(board: Board, artefact: Artefact) -> None:
    """Rounds and clocks are those that were asked for; of the seconds only the order is known."""
    model, inputs = board.load(artefact, 1), seeded_inputs(artefact.inputs, 0)
    for clock in ("wall", "cpu"):
        timings = board.time([(model, inputs), (model, inputs)], repeats=7, clock=clock)
        assert [len(timing.samples) for timing in timings] == [7, 7]
        assert all(1e-7 < timing.best < 1 for timing in timings)
    (long,) = board.time([(model, inputs)], seconds=0.05)
    assert len(long.samples) >= 3
    here = ThisMachine().load(artefact, 1)
    steps, wanted = model.time_steps(inputs, 3), here.time_steps(inputs, 3)  # type: ignore[attr-defined]
    assert [step[:2] for step in steps] == [(name, list(nodes)) for name, nodes, _ in wanted]


def test_what_it_says_of_itself(board: Board) -> None:
    assert board.processor.startswith(ThisMachine().processor)
    assert board.processor.endswith(f"board {board.address}")
    load_average, cores = board.busy()
    assert load_average >= 0
    assert cores == len(os.sched_getaffinity(0))
    assert board.target != "native"


def raw(server: Server) -> socket.socket:
    connection = socket.create_connection((server.address.host, server.address.port))
    connection.settimeout(10)
    return connection


GREETINGS = [
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(200),
    MAGIC,
    MAGIC + bytes(32),
    MAGIC + bytes(64),
    secrets.token_bytes(5000),
]


def test_who_does_not_know_the_key_is_left(server: Server, artefact: Artefact) -> None:
    for greeting in GREETINGS:
        found = b""
        with raw(server) as connection, suppress(OSError):  # it may close while this still sends
            connection.sendall(greeting)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(4096):
                found += part
        assert not any(found[40:]), greeting
    works(server, artefact)


def test_another_key_is_one_error(server: Server, artefact: Artefact) -> None:
    with pytest.raises(Retired, match="has another key"):
        Board(server.address, KEY[::-1])
    works(server, artefact)
    assert "refused: the client has another key" in server.said


def test_a_proof_is_good_for_one_connection(server: Server) -> None:
    """What a client sent before, or what the server itself answers, lets nobody in."""
    ours, theirs = socket.socketpair()
    with raw(server) as first, raw(server) as second, ours, theirs:
        greeting = first.recv(40)
        theirs.sendall(greeting)
        theirs.sendall(bytes(range(32)))
        with pytest.raises(Malformed, match="protocol"):
            greet(ours, KEY)
        proof = theirs.recv(72)
        second.recv(40)
        second.sendall(proof)
        assert second.recv(32) == bytes(32)
        first.sendall(proof)
        assert any(first.recv(32))


def hostile(server: Server) -> tuple[socket.socket, Channel]:
    connection = raw(server)
    return connection, greet(connection, KEY)


FRAMES = [
    struct.pack("<IQ", 2**32 - 1, 2**64 - 1),
    struct.pack("<IQ", 2, 0) + b"{}" + bytes(32),
    struct.pack("<IQ", 100, 0) + b"{}",
    b"\x80\x04",
]


def test_broken_frames_end_their_connection_alone(server: Server, artefact: Artefact) -> None:
    for frame in FRAMES:
        connection, _ = hostile(server)
        with connection, suppress(ConnectionResetError):
            connection.sendall(frame)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b"", frame
    works(server, artefact)


def named(digest: object, threads: object = 1) -> list[object]:
    return [{"digest": digest, "threads": threads}]


ODD: list[dict[str, Any]] = [
    {},
    {"do": 3},
    {"do": "reboot"},
    {"do": "__init__", "models": []},
    {"do": "run"},
    {"do": "run", "models": []},
    {"do": "run", "models": ["x"]},
    {"do": "run", "models": named(None)},
    {"do": "run", "models": named("known", "2")},
    {"do": "run", "models": named("known", -1)},
    {"do": "run", "models": named("known") * 17},
    {"do": "run", "models": named("known") * 2},
    {"do": "time", "models": named("known")},
    {"do": "time", "models": named("known"), "inputs": [1], "seconds": 1e9, "clock": "wall"},
    {"do": "time", "models": named("known"), "inputs": [1], "seconds": 1, "repeats": 10**9, "clock": "wall"},
    {"do": "time", "models": named("known"), "inputs": [1], "seconds": 1, "clock": "sun"},
    {"do": "time", "models": named("known"), "inputs": [-1, 2], "seconds": 1, "clock": "wall"},
    {"do": "steps", "models": named("known"), "repeats": True, "clock": "wall"},
    {"do": "put", "digest": "../../etc/passwd", "bytes": 3, "offset": 0},
    {"do": "put", "digest": "0" * 64, "bytes": 10**15, "offset": 0},
    {"do": "put", "digest": "0" * 64, "bytes": -1, "offset": 0},
    {"do": "put", "digest": "0" * 64, "bytes": 9, "offset": 4},
]


def test_odd_requests_get_an_error_and_the_next_one_an_answer(server: Server, board: Board, artefact: Artefact) -> None:
    known = {"digest": board.load(artefact, 1).digest}
    connection, channel = hostile(server)
    with connection:
        for request in ODD:
            if isinstance(items := request.get("models"), list):
                items = [{**item, **known} if isinstance(item, dict) and item["digest"] else item for item in items]
                request = {**request, "models": items}
            channel.send(Message(request, (np.zeros(4, np.uint8),)))
            assert set(channel.receive(20).header) == {"error"}, request
            channel.send(Message({"do": "describe"}))
            assert channel.receive(20).header["version"]
    works(server, artefact)


@pytest.mark.parametrize(
    "array", [np.zeros((1, 3, 8, 9), np.float32), np.zeros((1, 3, 8, 8)), np.zeros((1, 3, 8, 8), np.uint8)]
)
def test_inputs_that_do_not_fit_are_refused(board: Board, artefact: Artefact, array: np.ndarray) -> None:
    with pytest.raises(Retired, match="must be f32"):
        board.load(artefact, 1)(array)


def test_a_file_is_what_its_digest_says(server: Server, board: Board, artefact: Artefact) -> None:
    content = container.pack(artefact)
    connection, channel = hostile(server)
    with connection:
        part = np.frombuffer(content, np.uint8)
        channel.send(Message({"do": "put", "digest": "0" * 64, "bytes": len(content), "offset": 0}, (part,)))
        assert "another digest" in channel.receive(20).header["error"]["why"]
    cut = replace(board.load(artefact, 1), content=content[:-9], digest=digest_of(content[:-9]))
    board._put(cut)
    with pytest.raises(Retired, match="not a sound lvc artefact"):
        cut(*seeded_inputs(artefact.inputs, 0))


def test_what_was_pushed_out_is_sent_again(board: Board, artefact: Artefact) -> None:
    first = board.load(artefact, 1)
    for number in range(3):  # the server keeps a megabyte
        blob = secrets.token_bytes(400_000 + number)
        board._put(replace(first, content=blob, digest=digest_of(blob)))
    (image,) = seeded_inputs(artefact.inputs, 2)
    np.testing.assert_array_equal(first(image)[0], load(artefact, 1)(image))
    blob = secrets.token_bytes(1_000_001)
    with pytest.raises(Retired, match=r"the artefact has 1\.00 MB, and the board keeps 1\.00 MB"):
        board._put(replace(first, content=blob, digest=digest_of(blob)))


CRASHES = {
    "crashes": ("*(volatile int *)8 = 1;", "the artefact crashed", "by signal 11, Segmentation fault"),
    "ends": ("_exit(3);", "the artefact crashed", "its process ended with 3"),
}
"""What code does, and what is told of it."""


def with_code(artefact: Artefact, body: str, folder: Path) -> Artefact:
    """An artefact whose library does something else as soon as it is loaded."""
    source, library = folder / "bad.c", folder / "bad.so"
    source.write_text(f"#include <unistd.h>\n__attribute__((constructor)) static void begin(void) {{ {body} }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    content = library.read_bytes()
    plan = json.loads(bytes(artefact.files["plan.json"]))
    plan["checksums"]["model.so"] = zlib.crc32(content)
    return replace(artefact, files={**artefact.files, "model.so": content, "plan.json": json.dumps(plan).encode()})


@pytest.mark.parametrize("what", CRASHES)
def test_an_artefact_takes_nobody_with_it(server: Server, artefact: Artefact, tmp_path: Path, what: str) -> None:
    body, error, why = CRASHES[what]
    bad, oracle = with_code(artefact, body, tmp_path), same_code(artefact, 1)[0]
    with Board(server.address, KEY) as board, pytest.raises(Retired, match=error) as caught:
        board.load(bad, 1, oracle)(*seeded_inputs(artefact.inputs, 0))
    assert why in caught.value.why
    works(server, artefact)


def test_an_artefact_that_hangs_is_ended(artefact: Artefact, tmp_path: Path) -> None:
    bad, oracle = with_code(artefact, "for (;;) sleep(1);", tmp_path), same_code(artefact, 1)[0]
    with serving(tmp_path, "--limit", "1") as server:
        with Board(server.address, KEY) as board, pytest.raises(Retired, match="the artefact hangs") as caught:
            board.load(bad, 1, oracle)(*seeded_inputs(artefact.inputs, 0))
        assert caught.value.why == "a run of the model took more than 1 s"
        assert until(lambda: not children(server.process.pid))
        with Board(server.address, KEY) as board:
            assert board.target


def children(process: int) -> set[int]:
    """The processes that one has started, as Linux lists them."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may just have ended
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[1]) == process and fields[0] != "Z":
                found.add(int(file.parent.name))
    return found


def until(condition: object, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_work_ends_when_nobody_waits_for_it(server: Server, board: Board, artefact: Artefact) -> None:
    model = board.load(artefact, 1)
    assert until(lambda: not children(server.process.pid))
    connection, channel = hostile(server)
    inputs = seeded_inputs(artefact.inputs, 0)
    request = {"do": "time", "models": named(model.digest), "inputs": [1], "seconds": 600, "clock": "wall"}
    channel.send(Message(request, inputs))
    assert until(lambda: children(server.process.pid))
    connection.close()
    assert until(lambda: not children(server.process.pid))
    works(server, artefact)


def test_clients_take_turns(server: Server, board: Board, artefact: Artefact) -> None:
    heard: list[str] = []
    assert until(lambda: not children(server.process.pid))
    inputs, mine = seeded_inputs(artefact.inputs, 0), board.load(artefact, 1)
    busy = threading.Thread(target=lambda: board.time([(mine, inputs)], seconds=3))
    with Board(server.address, KEY, heard.append) as other:
        model = other.load(artefact, 1)
        busy.start()
        assert until(lambda: children(server.process.pid))
        assert model(*inputs)[0].shape == (1, 6)
    busy.join()
    assert heard == [f"the board {server.address} serves somebody else; waiting"]


def test_a_server_that_hangs_or_is_killed_is_retired(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = seeded_inputs(artefact.inputs, 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving(tmp_path) as server:
        board = Board(server.address, KEY)
        model = board.load(artefact, 1)
        thread = threading.Timer(1.0, server.process.kill)
        thread.start()
        with pytest.raises(Retired, match="is gone"):
            board.time([(model, inputs)], seconds=60)
        with pytest.raises(Retired, match="is gone"):
            model(*inputs)
        server.process.wait(20)
        with pytest.raises(Retired, match="there is no board") as caught:
            Board(server.address, KEY)
        assert "connection refused" in caught.value.why
    with serving(tmp_path) as server:
        board = Board(server.address, KEY)
        model = board.load(artefact, 1)
        monkeypatch.setattr(boards, "SILENCE", 1.0)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(Retired, match="hangs") as caught:
            model(*inputs)
        assert caught.value.why == "nothing was heard of it for 1 s"


def test_its_folder_and_processes_go_with_it(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving(tmp_path) as server:
        works(server, artefact)
        connection, channel = hostile(server)
        with connection:
            part = np.zeros(9, np.uint8)
            channel.send(Message({"do": "put", "digest": "0" * 64, "bytes": 10, "offset": 0}, (part,)))
            assert channel.receive(20).header == {"kept": False}
            assert list(tmp_path.glob("lvc-device-*/part-*"))
        assert until(lambda: [file.suffix for file in tmp_path.glob("lvc-device-*/*")] == [".lvc"])
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not list(tmp_path.glob("lvc-device-*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "a key is required"),
        (["--key-file", "none.key"], "cannot read the key 'none.key'"),
        (["--key-file", "open.key"], "others may read the key 'open.key'"),
        (["--key-file", "short.key"], "'short.key' holds no key"),
        (["--key-file", "good.key", "--host", "203.0.113.9"], "cannot listen at 203.0.113.9"),
        (["--key-file", "good.key", "--host", "no such host"], "there is no address 'no such host'"),
        (["--key-file", "good.key", "--port", "70000"], "'70000' is no port"),
        (["--key-file", "good.key", "--limit", "0"], "not an integer from 1"),
    ],
)
def test_mistakes_of_whoever_starts_it(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LVC_DEVICE_KEY", raising=False)
    for name, mode in {"open.key": 0o644, "short.key": 0o600, "good.key": 0o600}.items():
        Path(name).touch(mode)
        Path(name).write_bytes(KEY[:31] if name == "short.key" else KEY)
    assert main(["serve-device", *arguments]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("error:") == 1


def test_a_port_that_is_taken_is_one_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LVC_DEVICE_KEY", KEY.decode())
    assert main(["serve-device", "--port", str(server.address.port)]) == 2
    assert "address already in use" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "text", ["", ":1", "host:", "host:0", "host:99999", "user@host:1", "http://host:1", "::1", "a b:1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(Exception, match="is no address of a board"):
        Address.parse(text)


def test_addresses_in_all_forms() -> None:
    assert (Address.parse("pi4").port, str(Address.parse("[::1]:80")), Address.parse("[::1]").host) == (
        7582,
        "[::1]:80",
        "::1",
    )


def test_what_a_killed_server_left_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "lvc-device-of-others").symlink_to(tmp_path)
    for name in ("killed", "alive", "next"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "killed") as killed:
        (left,) = folders_of_servers(tmp_path)
        killed.process.kill()
        killed.process.wait()
    with serving(tmp_path / "alive"):
        assert left in folders_of_servers(tmp_path)  # it might be one that is being made
        (others,) = folders_of_servers(tmp_path) - {left}
        for folder in (left, others):
            os.utime(folder, (0, 0))
        with serving(tmp_path / "next"):
            assert left not in folders_of_servers(tmp_path)
            assert others in folders_of_servers(tmp_path)
    assert folders_of_servers(tmp_path) == set()


def folders_of_servers(folder: Path) -> set[Path]:
    return {path for path in folder.glob("lvc-device-*") if not path.is_symlink()}
